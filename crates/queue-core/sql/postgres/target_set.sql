-- Purpose:   replaces a target's settings.
-- Arguments: 1 name, 2 paused, 3 paused_until, 4 reason, 5 breaker.
-- Returns:   the new version.
-- Invariant: versions grow by one with every change.
INSERT INTO targets AS t (name, version, paused, paused_until, reason, breaker)
VALUES ($1, 1, $2, $3, $4, $5)
ON CONFLICT (name) DO UPDATE
SET version = t.version + 1, paused = excluded.paused, paused_until = excluded.paused_until,
    reason = excluded.reason, breaker = excluded.breaker
RETURNING version
