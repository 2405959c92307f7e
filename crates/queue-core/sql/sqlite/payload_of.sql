-- Purpose:   the payload of a job.
-- Arguments: 1 id.
-- Returns:   body.
-- Invariant: writes nothing.
SELECT p.body FROM jobs j JOIN payloads p ON p.seq = j.seq WHERE j.id = ?1;
