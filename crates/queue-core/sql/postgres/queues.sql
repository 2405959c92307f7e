-- Purpose:   every queue with its settings.
-- Arguments: none.
-- Returns:   name, version, paused, paused_until, reason, concurrency, timeout_ms, key_concurrency, draining.
-- Invariant: cost depends on the number of queues.
SELECT name, version, paused, paused_until, reason, concurrency, timeout_ms, key_concurrency, draining FROM queues ORDER BY name
