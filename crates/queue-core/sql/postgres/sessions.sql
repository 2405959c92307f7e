-- Purpose:   worker processes that registered and did not leave.
-- Arguments: none.
-- Returns:   id, host, version, slots, started_at, draining.
-- Invariant: cost depends on the number of processes.
SELECT id, host, version, slots, started_at, draining FROM sessions ORDER BY started_at, id
