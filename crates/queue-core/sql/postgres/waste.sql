-- Purpose:   marks the answers of jobs that are dead letters now as spent for nothing.
-- Arguments: 1 job_ids.
-- Returns:   nothing.
-- Invariant: follows the write that made them dead in its transaction; an answer is marked once.
UPDATE spend SET waste = 'died' WHERE job_id = ANY ($1::uuid[]) AND status = 'ok' AND waste IS NULL
