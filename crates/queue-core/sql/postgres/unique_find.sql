-- Purpose:   the live jobs that hold unique keys.
-- Arguments: 1 tenants, 2 keys; arrays of one length.
-- Returns:   tenant, key, job_id of those that are held.
-- Invariant: a holder that ended since `unique_claim` is not there: the accept then begins anew.
SELECT k.tenant, k.key, k.job_id
FROM unnest($1::text[], $2::text[]) AS asked (tenant, key)
JOIN unique_keys k ON k.tenant = asked.tenant AND k.key = asked.key
