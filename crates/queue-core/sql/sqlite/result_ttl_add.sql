-- Purpose:   notes how long the result of a new job is kept after the job's end.
-- Arguments: 1 seq, 2 time in milliseconds, 3 the moment before which it cannot be over.
-- Returns:   nothing.
-- Invariant: in the transaction that accepts the job.
INSERT INTO result_ttls (seq, ttl_ms, look_at) VALUES (?1, ?2, ?3) ON CONFLICT (seq) DO NOTHING;
