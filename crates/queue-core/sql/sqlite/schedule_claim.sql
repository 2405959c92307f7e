-- Purpose:   takes a schedule that is due.
-- Arguments: 1 id, 2 now, 3 when others may take it.
-- Returns:   the columns of a schedule; no row where somebody else has taken it.
-- Invariant: it saves double work, and nothing hangs on it.
UPDATE schedules SET due_at = ?3 WHERE id = ?1 AND due_at <= ?2
RETURNING id, tenant, name, key_id, template, settings, progress, version, generation, beat, due_at, created_at;
