-- Purpose:   takes idempotency keys that nobody has used.
-- Arguments: 1 tenants, 2 keys, 3 items, 4 fingerprints, 5 job_ids, 6 created_at; arrays of one length, in the order of
--            the keys.
-- Returns:   tenant, key, item of those that were free.
-- Invariant: the first request with a key owns it; whoever claims it at the same time waits for that commit.
INSERT INTO idempotency_keys (tenant, key, item, fingerprint, job_id, created_at)
SELECT * FROM unnest($1::text[], $2::text[], $3::bigint[], $4::bytea[], $5::uuid[], $6::bigint[])
ON CONFLICT (tenant, key, item) DO NOTHING
RETURNING tenant, key, item
