-- Purpose:   how the attempts of dead letters ended, oldest first.
-- Arguments: 1 ids.
-- Returns:   job_id, epoch, number, outcome, session, started_at, finished_at, error.
-- Invariant: writes nothing.
SELECT job_id, epoch, number, outcome, session, started_at, finished_at, error
FROM attempts
WHERE job_id = ANY ($1::uuid[])
ORDER BY job_id, epoch
