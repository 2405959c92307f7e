-- Purpose:   what was accepted under an idempotency key.
-- Arguments: 1 owner, 2 key.
-- Returns:   fingerprint, item, job_id, created_at, in the order of the items.
-- Invariant: a key has one body, and so one fingerprint.
SELECT b.fingerprint, k.item, k.job_id, k.created_at
FROM idempotency_bodies b JOIN idempotency_keys k ON k.tenant = b.tenant AND k.key = b.key
WHERE b.tenant = $1 AND b.key = $2
ORDER BY k.item
