-- Purpose:   the dead letters of a tenant's key by cause, most first.
-- Arguments: 1 queue or NULL, 2 limit, 3 tenant, 4 key.
-- Returns:   signature, class, count, first and last finished_at, cost_nanousd.
-- Invariant: walks the tenant's dead letters alone.
SELECT error_signature, error_class, count(*), min(finished_at), max(finished_at), sum(cost_nanousd)
FROM jobs
WHERE standing = 2 AND tenant = ?3 AND (?1 IS NULL OR queue = ?1) AND key_id = ?4
GROUP BY error_signature, error_class
ORDER BY count(*) DESC, error_signature, error_class
LIMIT ?2;
