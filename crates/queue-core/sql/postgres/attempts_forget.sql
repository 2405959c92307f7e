-- Purpose:   takes attempts of jobs away.
-- Arguments: 1 ids.
-- Returns:   nothing; as many rows changed as went.
-- Invariant: follows `attempts_old` in its transaction: a job that has settled so never runs again.
DELETE FROM attempts WHERE job_id = ANY ($1::uuid[])
