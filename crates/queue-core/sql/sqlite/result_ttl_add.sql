-- Purpose:   notes how long the result of a new job is kept after the job's end.
-- Arguments: 1 seq, 2 time in milliseconds, 3 the moment before which it cannot be over.
-- Returns:   nothing.
-- Invariant: in the transaction that accepts the job. What stands there is of another job, which had this number before.
INSERT INTO result_ttls (seq, ttl_ms, look_at) VALUES (?1, ?2, ?3)
ON CONFLICT (seq) DO UPDATE SET ttl_ms = excluded.ttl_ms, look_at = excluded.look_at;
