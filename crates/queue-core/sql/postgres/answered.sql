-- Purpose:   what was accepted under an idempotency key.
-- Arguments: 1 owner, 2 key.
-- Returns:   fingerprint, item, job_id, created_at, in the order of the items.
-- Invariant: all rows of a key have one fingerprint.
SELECT fingerprint, item, job_id, created_at FROM idempotency_keys WHERE tenant = $1 AND key = $2 ORDER BY item
