-- Purpose:   takes the kept answers of a deleted job away.
-- Arguments: 1 job_id.
-- Returns:   nothing.
-- Invariant: follows `delete_job` in its transaction.
DELETE FROM memos WHERE job_id = ?1;
