-- Purpose:   gives back idempotency keys of bodies of which then no item was accepted.
-- Arguments: 1 owners, 2 keys; arrays of one length.
-- Returns:   nothing.
-- Invariant: only keys that this transaction has claimed, so no item of them is there.
DELETE FROM idempotency_bodies b
USING unnest($1::text[], $2::text[]) AS asked (tenant, key)
WHERE b.tenant = asked.tenant AND b.key = asked.key
