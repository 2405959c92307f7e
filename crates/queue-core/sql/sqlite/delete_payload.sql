-- Purpose:   takes the payloads of a deleted job away.
-- Arguments: 1 seq.
-- Returns:   nothing.
-- Invariant: follows `delete_job` in its transaction.
DELETE FROM payloads WHERE seq = ?1;
