-- Purpose:   every queue with its settings.
-- Arguments: none.
-- Returns:   name, version, paused, paused_until, reason, concurrency, timeout_ms, key_concurrency, draining, retention_ms.
-- Invariant: cost depends on the number of queues.
SELECT name, version, paused, paused_until, reason, concurrency, timeout_ms, key_concurrency, draining, retention_ms FROM queues ORDER BY name
