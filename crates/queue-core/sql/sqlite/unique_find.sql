-- Purpose:   the live job that holds a unique key.
-- Arguments: 1 tenant, 2 key.
-- Returns:   job_id.
-- Invariant: read in the transaction that inserts.
SELECT job_id FROM unique_keys WHERE tenant = ?1 AND key = ?2;
