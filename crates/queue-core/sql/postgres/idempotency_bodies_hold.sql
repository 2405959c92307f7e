-- Purpose:   holds bodies whose keys are to be forgotten.
-- Arguments: 1 owners, 2 keys; arrays of one length.
-- Returns:   owner, key of those that nobody asks for at this moment.
-- Invariant: whoever accepts a further item of a body has read it with a lock that is in the way of this one.
SELECT b.tenant, b.key
FROM unnest($1::text[], $2::text[]) AS asked (tenant, key)
JOIN idempotency_bodies b ON b.tenant = asked.tenant AND b.key = asked.key
FOR UPDATE OF b SKIP LOCKED
