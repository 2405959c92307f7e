-- Purpose:   takes schedules that are due.
-- Arguments: 1 now, 2 when others may take them, 3 limit.
-- Returns:   the columns of a schedule.
-- Invariant: rows that somebody else takes or changes at this moment are passed over. It saves double work, and nothing hangs on it.
WITH due AS (
    SELECT id FROM schedules
    WHERE due_at <= $1::bigint
    ORDER BY due_at, id
    LIMIT $3::bigint
    FOR UPDATE SKIP LOCKED
)
UPDATE schedules s SET due_at = $2::bigint
FROM due
WHERE s.id = ANY (ARRAY[due.id])
RETURNING s.id, s.tenant, s.name, s.key_id, s.template, s.settings, s.progress, s.version, s.generation, s.beat, s.due_at,
          s.created_at
