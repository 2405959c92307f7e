-- Purpose:   replaces a target's settings.
-- Arguments: 1 name, 2 paused, 3 paused_until, 4 reason, 5 breaker, 6 requests_per_minute, 7 tokens_per_minute,
--            8 tokens_charged, 9 concurrency.
-- Returns:   the new version.
-- Invariant: versions grow by one with every change.
INSERT INTO targets (name, version, paused, paused_until, reason, breaker, requests_per_minute,
                    tokens_per_minute, tokens_charged, concurrency)
VALUES (?1, 1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
ON CONFLICT (name) DO UPDATE
SET version = version + 1, paused = excluded.paused, paused_until = excluded.paused_until,
    reason = excluded.reason, breaker = excluded.breaker,
    requests_per_minute = excluded.requests_per_minute, tokens_per_minute = excluded.tokens_per_minute,
    tokens_charged = excluded.tokens_charged, concurrency = excluded.concurrency
RETURNING version;
