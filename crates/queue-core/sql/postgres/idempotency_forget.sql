-- Purpose:   forgets items of idempotency keys that are older than a moment.
-- Arguments: 1 owners, 2 keys; arrays of one length; 3 the moment.
-- Returns:   nothing.
-- Invariant: follows `idempotency_bodies_hold` in its transaction; `idempotency_bodies_forget` follows.
DELETE FROM idempotency_keys k
USING unnest($1::text[], $2::text[]) AS asked (tenant, key)
WHERE k.tenant = asked.tenant AND k.key = asked.key AND k.created_at < $3
