-- Purpose:   one schedule.
-- Arguments: 1 id.
-- Returns:   the columns of a schedule.
-- Invariant: writes nothing.
SELECT id, tenant, name, key_id, template, settings, progress, version, generation, beat, due_at, created_at
FROM schedules
WHERE id = $1
