-- Purpose:   takes items of bodies, where nobody has accepted them.
-- Arguments: 1 owners, 2 keys, 3 items, 4 job_ids, 5 created_at; arrays of one length, in the order of the keys.
-- Returns:   owner, key, item of those that were free.
-- Invariant: the first request with an item owns it; whoever claims it at the same time waits for that commit.
INSERT INTO idempotency_keys (tenant, key, item, job_id, created_at)
SELECT * FROM unnest($1::text[], $2::text[], $3::bigint[], $4::uuid[], $5::bigint[])
ON CONFLICT (tenant, key, item) DO NOTHING
RETURNING tenant, key, item
