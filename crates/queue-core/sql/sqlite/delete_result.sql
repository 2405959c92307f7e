-- Purpose:   takes the results of a deleted job away.
-- Arguments: 1 seq.
-- Returns:   nothing.
-- Invariant: follows `delete_job` in its transaction.
DELETE FROM results WHERE seq = ?1;
