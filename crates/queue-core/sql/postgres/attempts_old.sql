-- Purpose:   jobs whose attempts are old and lie where no table of a day is dropped: in days that are held, and in the default one.
-- Arguments: 1 the moment before which the jobs ended, 2 the first id of days that may go whole later, 3 rows at most.
-- Returns:   ids; one that has several comes as often.
-- Invariant: writes nothing. A job that may run again has no settled row.
SELECT a.job_id FROM attempts a
WHERE a.job_id < $2 AND (SELECT j.finished_at FROM settled_jobs j WHERE j.id = a.job_id LIMIT 1) < $1
ORDER BY a.job_id LIMIT $3
