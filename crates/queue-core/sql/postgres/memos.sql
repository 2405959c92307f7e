-- Purpose:   every kept answer of a job.
-- Arguments: 1 job_id.
-- Returns:   call_id, request_hash, body.
-- Invariant: writes nothing.
SELECT call_id, request_hash, body FROM memos WHERE job_id = $1 ORDER BY call_id
