-- Purpose:   takes payloads of jobs away.
-- Arguments: 1 ids.
-- Returns:   nothing; as many rows changed as went.
-- Invariant: follows `payloads_old` in its transaction: a job that has settled so never runs again.
DELETE FROM payloads WHERE id = ANY ($1::uuid[])
