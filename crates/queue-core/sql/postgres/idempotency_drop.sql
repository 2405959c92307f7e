-- Purpose:   gives back idempotency keys that were claimed for jobs which then were not accepted.
-- Arguments: 1 tenants, 2 keys, 3 items; arrays of one length.
-- Returns:   nothing.
-- Invariant: only keys that this transaction has claimed.
DELETE FROM idempotency_keys k
USING unnest($1::text[], $2::text[], $3::bigint[]) AS asked (tenant, key, item)
WHERE k.tenant = asked.tenant AND k.key = asked.key AND k.item = asked.item
