-- Purpose:   a page of schedules, newest first.
-- Arguments: 1 tenant or NULL, 2 name or NULL, 3 behind this id or NULL, 4 limit.
-- Returns:   the columns of a schedule, without templates: a page of those would be large.
-- Invariant: a tenant has a bounded number of them.
SELECT id, tenant, name, key_id, '' AS template, settings, progress, version, generation, beat, due_at, created_at
FROM schedules
WHERE ($1::text IS NULL OR tenant = $1::text) AND ($2::text IS NULL OR name = $2::text)
  AND id < coalesce($3::uuid, 'ffffffff-ffff-ffff-ffff-ffffffffffff')
ORDER BY id DESC
LIMIT $4
