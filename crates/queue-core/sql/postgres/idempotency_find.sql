-- Purpose:   what repeated requests were answered with.
-- Arguments: 1 owners, 2 keys, 3 items; arrays of one length.
-- Returns:   owner, key, item, job_id of those that are there.
-- Invariant: read after `idempotency_claim` has waited, so it sees what was in the way.
SELECT k.tenant, k.key, k.item, k.job_id
FROM unnest($1::text[], $2::text[], $3::bigint[]) AS asked (tenant, key, item)
JOIN idempotency_keys k ON k.tenant = asked.tenant AND k.key = asked.key AND k.item = asked.item
