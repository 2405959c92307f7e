-- Purpose:   the fallback chain of a job.
-- Arguments: 1 id.
-- Returns:   the chain as JSON, or NULL.
-- Invariant: writes nothing.
SELECT fallback FROM payloads WHERE id = $1
