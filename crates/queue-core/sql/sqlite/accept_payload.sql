-- Purpose:   the payload of a job that was inserted just now.
-- Arguments: 1 the job's seq, 2 body, 3 fallback chain as JSON.
-- Returns:   nothing.
-- Invariant: every job has one payload, written in the transaction that accepts it.
INSERT INTO payloads (seq, body, fallback) VALUES (?1, ?2, ?3);
