-- Purpose:   replaces a queue's settings.
-- Arguments: 1 name, 2 paused, 3 paused_until, 4 reason, 5 concurrency, 6 timeout_ms, 7 key_concurrency, 8 draining, 9 retention_ms.
-- Returns:   the new version.
-- Invariant: versions grow by one with every change.
INSERT INTO queues (name, version, paused, paused_until, reason, concurrency, timeout_ms, key_concurrency, draining,
                         retention_ms)
VALUES (?1, 1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
ON CONFLICT (name) DO UPDATE
SET version = version + 1, paused = excluded.paused, paused_until = excluded.paused_until, reason = excluded.reason,
    concurrency = excluded.concurrency, timeout_ms = excluded.timeout_ms, key_concurrency = excluded.key_concurrency, draining = excluded.draining, retention_ms = excluded.retention_ms
RETURNING version;
