-- Purpose:   gives unique keys to live jobs, where they are free.
-- Arguments: 1 tenants, 2 keys, 3 job_ids; arrays of one length, in the order of the keys.
-- Returns:   tenant, key of those that were free.
-- Invariant: a key that is held stays with its holder; whoever takes or frees it at the same time is waited for.
INSERT INTO unique_keys (tenant, key, job_id)
SELECT * FROM unnest($1::text[], $2::text[], $3::uuid[])
ON CONFLICT (tenant, key) DO NOTHING
RETURNING tenant, key
