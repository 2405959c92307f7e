-- Purpose:   how many items of idempotency keys are older than a moment, and how old the oldest is.
-- Arguments: 1 the moment, 2 count no further.
-- Returns:   how many, the oldest moment of all.
-- Invariant: writes nothing.
SELECT (SELECT count(*) FROM (SELECT 1 FROM idempotency_keys WHERE created_at < $1 ORDER BY created_at LIMIT $2) AS old),
       (SELECT min(created_at) FROM idempotency_keys)
