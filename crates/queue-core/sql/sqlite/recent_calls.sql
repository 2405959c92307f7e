-- Purpose:   the newest provider calls, newest first, as far as they tell how targets do.
-- Arguments: 1 that ended at or after, 2 limit.
-- Returns:   provider, model, credential, status, duration_ms, at.
-- Invariant: walks the end of the index of times, at most `limit` entries of it.
SELECT provider, model, credential, status, duration_ms, at
FROM spend
WHERE at >= ?1
ORDER BY at DESC
LIMIT ?2;
