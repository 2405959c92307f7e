-- Purpose:   which bodies own idempotency keys.
-- Arguments: 1 owners, 2 keys; arrays of one length.
-- Returns:   owner, key, fingerprint of those that are in use.
-- Invariant: read after `idempotency_bodies_claim` has waited, so it sees what was in the way. A body that is in use is not forgotten
--            before the commit.
SELECT b.tenant, b.key, b.fingerprint
FROM unnest($1::text[], $2::text[]) AS asked (tenant, key)
JOIN idempotency_bodies b ON b.tenant = asked.tenant AND b.key = asked.key
FOR KEY SHARE OF b
