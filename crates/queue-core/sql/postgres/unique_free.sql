-- Purpose:   frees unique keys.
-- Arguments: 1 tenants, 2 keys, 3 job_ids; arrays of one length.
-- Returns:   nothing.
-- Invariant: only its holder frees a key.
DELETE FROM unique_keys k
USING unnest($1::text[], $2::text[], $3::uuid[]) AS ended (tenant, key, job_id)
WHERE k.tenant = ended.tenant AND k.key = ended.key AND k.job_id = ended.job_id
