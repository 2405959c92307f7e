-- Purpose:   what operators have ordered that concerns a worker.
-- Arguments: 1 its session.
-- Returns:   maintenance since, reason, whether it drains.
-- Invariant: one row, also for a worker that is not registered.
SELECT maintenance_since, maintenance_reason, EXISTS (SELECT 1 FROM sessions WHERE id = $1 AND draining) FROM meta
