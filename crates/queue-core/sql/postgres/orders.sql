-- Purpose:   what operators have ordered that concerns a worker.
-- Arguments: 1 its session.
-- Returns:   maintenance since, reason, whether it drains (NULL: it is not registered).
-- Invariant: one row, also for a worker that is not registered.
SELECT maintenance_since, maintenance_reason, (SELECT draining FROM sessions WHERE id = $1) FROM meta
