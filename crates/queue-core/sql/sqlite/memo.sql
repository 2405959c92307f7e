-- Purpose:   keeps a provider's answer for the attempts that follow.
-- Arguments: 1 job_id, 2 call_id, 3 request_hash, 4 body.
-- Returns:   nothing.
-- Invariant: the first answer of a call stays: later attempts may have built on it.
INSERT INTO memos (job_id, call_id, request_hash, body) VALUES (?1, ?2, ?3, ?4) ON CONFLICT (job_id, call_id) DO NOTHING;
