-- Purpose:   the payload of a job.
-- Arguments: 1 id.
-- Returns:   body.
-- Invariant: writes nothing.
SELECT body FROM payloads WHERE id = $1
