-- Purpose:   takes idempotency keys for whole bodies, where nobody has used the key.
-- Arguments: 1 owners, 2 keys, 3 fingerprints; arrays of one length, in the order of the keys.
-- Returns:   owner, key of those that were free.
-- Invariant: the first body with a key owns it, whatever items it has; whoever claims it at the same time waits for
--            that commit.
INSERT INTO idempotency_bodies (tenant, key, fingerprint)
SELECT * FROM unnest($1::text[], $2::text[], $3::bytea[])
ON CONFLICT (tenant, key) DO NOTHING
RETURNING tenant, key
