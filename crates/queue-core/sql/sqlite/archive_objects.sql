-- Purpose:   objects of an archive, by path.
-- Arguments: 1 id of the archive, 2 from behind this path on, or '', 3 limit.
-- Returns:   path, tenant, sha256, bytes, letters, calls, cost_nanousd, first_ended_at, last_ended_at, restored.
-- Invariant: writes nothing.
SELECT path, tenant, sha256, bytes, letters, calls, cost_nanousd, first_ended_at, last_ended_at, restored
FROM archive_objects
WHERE archive_id = ?1 AND path > ?2
ORDER BY path
LIMIT ?3;
