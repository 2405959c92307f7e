-- Purpose:   makes a job that too many workers died with a dead letter.
-- Arguments: 1 seq, 2 finished_at, 3 error, 4 its class, 5 its signature.
-- Returns:   nothing.
-- Invariant: follows `recover` in its transaction, so the job is live.
UPDATE jobs SET standing = 2, finished_at = ?2, error = ?3, error_class = ?4, error_signature = ?5
WHERE seq = ?1 AND standing = 0;
