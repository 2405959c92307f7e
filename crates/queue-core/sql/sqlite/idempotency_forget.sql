-- Purpose:   forgets items of idempotency keys that are older than a moment.
-- Arguments: 1 the moment, 2 rows at most.
-- Returns:   nothing; as many rows changed as went.
-- Invariant: a key whose last item is gone is free.
DELETE FROM idempotency_keys WHERE (tenant, key, item) IN (
    SELECT tenant, key, item FROM idempotency_keys WHERE created_at < ?1 ORDER BY created_at LIMIT ?2);
