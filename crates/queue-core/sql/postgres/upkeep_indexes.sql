-- Purpose:   indexes, and about how many of their bytes are for nothing.
-- Arguments: none.
-- Returns:   name, table, bytes, bloat_bytes, is_leftover.
-- Invariant: an estimate: what as many entries of the columns' mean widths take at 90 % of a page, against what is there. Row-level security
--            hides statistics from whoever it could bind: then a column of a fixed type has its size, and any other 32 bytes, more than
--            our names are. Equal keys are packed, too, so it errs to the low side. A leftover is what REINDEX names so and nobody builds;
--            builds of other roles may show no table, and then nothing counts as left.
SELECT x.index_name, x.table_name, x.bytes,
       CASE WHEN x.entries < 1 THEN 0
            ELSE greatest(0, x.bytes - (8192 * (2 + ceil(x.entries * (12 + ((x.width + 7) / 8)::integer * 8) / (8152 * 0.9))))::bigint)
       END::bigint,
       x.is_leftover
FROM (
    SELECT i.relname::text AS index_name, t.relname::text AS table_name, pg_relation_size(i.oid) AS bytes,
           i.reltuples::float8 AS entries,
           NOT n.indisvalid AND i.relname ~ '_cc(new|old)[0-9]*$'
               AND NOT EXISTS (SELECT 1 FROM pg_stat_progress_create_index b
                               WHERE b.datname = current_database() AND (b.relid = t.oid OR b.relid IS NULL)) AS is_leftover,
           (SELECT sum(coalesce(p.avg_width, CASE WHEN o.attlen > 0 THEN o.attlen ELSE 32 END))
            FROM unnest(n.indkey::smallint[]) WITH ORDINALITY AS k (attnum, place)
                 JOIN pg_attribute o ON o.attrelid = i.oid AND o.attnum = k.place
                 LEFT JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = k.attnum AND k.attnum > 0
                 LEFT JOIN pg_stats p ON p.schemaname = current_schema() AND p.tablename = t.relname AND p.attname = a.attname) AS width
    FROM pg_index n
    JOIN pg_class i ON i.oid = n.indexrelid
    JOIN pg_class t ON t.oid = n.indrelid
    JOIN pg_am m ON m.oid = i.relam
    WHERE t.relnamespace = current_schema()::regnamespace AND i.relkind = 'i' AND m.amname = 'btree'
) AS x
