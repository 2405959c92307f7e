-- Purpose:   forgets bodies of which no item is left.
-- Arguments: 1 owners, 2 keys; arrays of one length.
-- Returns:   nothing.
-- Invariant: follows `idempotency_forget` in its transaction, as a statement of its own: it sees what was accepted meanwhile.
DELETE FROM idempotency_bodies b
USING unnest($1::text[], $2::text[]) AS asked (tenant, key)
WHERE b.tenant = asked.tenant AND b.key = asked.key
      AND (SELECT 1 FROM idempotency_keys k WHERE k.tenant = b.tenant AND k.key = b.key LIMIT 1) IS NULL
