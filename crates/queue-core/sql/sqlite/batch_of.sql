-- Purpose:   the jobs of a batch by standing, within a tenant and a key.
-- Arguments: 1 batch_id, 2 tenant, 3 key or NULL.
-- Returns:   standing, count.
-- Invariant: walks the jobs of the batch, whoever they belong to.
SELECT standing, count(*) FROM jobs
WHERE batch_id = ?1 AND tenant = ?2 AND (?3 IS NULL OR key_id = ?3)
GROUP BY standing;
