-- Purpose: what each statement cost Postgres since the last reset, the dearest first, as one JSON array.
-- A statement is named by the first line of its header, else by how it begins.
SELECT coalesce(json_agg(s), '[]')
FROM (
    SELECT
        coalesce(
            substring(query FROM 'Purpose: *([^\n]*)'),
            left(regexp_replace(query, '\s+', ' ', 'g'), 70)
        ) AS statement,
        sum(calls)::float8 AS calls,
        sum(rows)::float8 AS rows,
        sum(total_exec_time)::float8 * 1000 AS exec_us,
        sum(wal_bytes)::float8 AS wal_bytes
    FROM pg_stat_statements
    WHERE query NOT ILIKE '%pg_stat_statements%'
    GROUP BY 1
    ORDER BY exec_us DESC
    LIMIT 12
) AS s;
