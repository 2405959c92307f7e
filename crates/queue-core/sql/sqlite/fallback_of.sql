-- Purpose:   the fallback chain of a job.
-- Arguments: 1 id.
-- Returns:   the chain as JSON, or NULL.
-- Invariant: writes nothing.
SELECT p.fallback FROM jobs j JOIN payloads p ON p.seq = j.seq WHERE j.id = ?1;
