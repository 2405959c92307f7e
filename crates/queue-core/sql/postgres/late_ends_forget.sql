-- Purpose:   forgets late ends of days whose table is gone.
-- Arguments: 1 the moment before which the days began, 2 rows at most.
-- Returns:   nothing; as many rows changed as went.
-- Invariant: the table of a day that is over is never made again. Looks at one row of each day.
WITH RECURSIVE days AS (
    SELECT (SELECT l.day FROM late_ends l ORDER BY l.day LIMIT 1) AS day
    UNION ALL
    SELECT (SELECT l.day FROM late_ends l WHERE l.day > d.day ORDER BY l.day LIMIT 1) FROM days d WHERE d.day IS NOT NULL
)
DELETE FROM late_ends WHERE ctid = ANY (ARRAY(
    SELECT l.place
    FROM days d CROSS JOIN LATERAL (SELECT e.ctid AS place FROM late_ends e WHERE e.day = d.day LIMIT $2) AS l
    WHERE (d.day - DATE '1970-01-01')::bigint * 86400000 < $1 AND to_regclass('settled_jobs' || to_char(d.day, '_YYYYMMDD')) IS NULL
    LIMIT $2))
