-- Purpose:   which bodies own idempotency keys.
-- Arguments: 1 owners, 2 keys; arrays of one length.
-- Returns:   owner, key, fingerprint of those that are in use.
-- Invariant: read before `idempotency_claim`, so it sees other requests only. A key belongs to a whole body: an item
--            that is new is judged by its neighbours.
SELECT asked.tenant, asked.key, k.fingerprint
FROM unnest($1::text[], $2::text[]) AS asked (tenant, key)
CROSS JOIN LATERAL (
    SELECT fingerprint FROM idempotency_keys WHERE tenant = asked.tenant AND key = asked.key LIMIT 1
) AS k
