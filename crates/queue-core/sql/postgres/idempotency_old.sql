-- Purpose:   idempotency keys that have an item older than a moment.
-- Arguments: 1 the moment, 2 items at most.
-- Returns:   owner, key.
-- Invariant: writes nothing.
SELECT DISTINCT tenant, key
FROM (SELECT tenant, key FROM idempotency_keys WHERE created_at < $1 ORDER BY created_at LIMIT $2) AS old
ORDER BY tenant, key
