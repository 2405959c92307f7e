-- Purpose:   jobs whose payloads are old and lie where no table of a day is dropped: in days that are held, and in the default one.
-- Arguments: 1 the moment before which the jobs ended, 2 the first id of days that may go whole later, 3 rows at most.
-- Returns:   ids.
-- Invariant: writes nothing. A job that may run again has no settled row.
SELECT p.id FROM payloads p
WHERE p.id < $2 AND (SELECT j.finished_at FROM settled_jobs j WHERE j.id = p.id LIMIT 1) < $1
ORDER BY p.id LIMIT $3
