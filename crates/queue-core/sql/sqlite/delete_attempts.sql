-- Purpose:   takes the attempts of a deleted job away.
-- Arguments: 1 seq.
-- Returns:   nothing.
-- Invariant: follows `delete_job` in its transaction.
DELETE FROM attempts WHERE seq = ?1;
