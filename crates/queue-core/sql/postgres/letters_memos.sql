-- Purpose:   the kept answers of dead letters.
-- Arguments: 1 ids.
-- Returns:   job_id, call_id, request_hash, body.
-- Invariant: writes nothing.
SELECT job_id, call_id, request_hash, body FROM memos WHERE job_id = ANY ($1::uuid[]) ORDER BY job_id, call_id
