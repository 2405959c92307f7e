-- Purpose:   marks the answers of a job that is a dead letter now as spent for nothing.
-- Arguments: 1 job_id.
-- Returns:   nothing.
-- Invariant: follows the write that made it dead in its transaction; an answer is marked once.
UPDATE spend SET waste = 'died' WHERE job_id = ?1 AND status = 'ok' AND waste IS NULL;
