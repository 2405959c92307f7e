-- Purpose:   frees the unique key of a job that ended.
-- Arguments: 1 tenant, 2 key, 3 job_id.
-- Returns:   nothing.
-- Invariant: only its holder frees a key.
DELETE FROM unique_keys WHERE tenant = ?1 AND key = ?2 AND job_id = ?3;
