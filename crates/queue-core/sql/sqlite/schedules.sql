-- Purpose:   a page of schedules, newest first.
-- Arguments: 1 tenant or NULL, 2 name or NULL, 3 behind this id or NULL, 4 limit.
-- Returns:   the columns of a schedule, without templates: a page of those would be large.
-- Invariant: a tenant has a bounded number of them.
SELECT id, tenant, name, key_id, '' AS template, settings, progress, version, generation, beat, due_at, created_at
FROM schedules
WHERE (?1 IS NULL OR tenant = ?1) AND (?2 IS NULL OR name = ?2) AND (?3 IS NULL OR id < ?3)
ORDER BY id DESC
LIMIT ?4;
