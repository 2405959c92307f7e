-- Purpose:   gives a unique key to a live job, where it is free.
-- Arguments: 1 tenant, 2 key, 3 job_id.
-- Returns:   nothing.
-- Invariant: a key that is held stays with its holder.
INSERT INTO unique_keys (tenant, key, job_id) VALUES (?1, ?2, ?3) ON CONFLICT (tenant, key) DO NOTHING;
