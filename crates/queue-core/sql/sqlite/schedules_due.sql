-- Purpose:   schedules that are due.
-- Arguments: 1 now, 2 limit.
-- Returns:   id.
-- Invariant: writes nothing.
SELECT id FROM schedules WHERE due_at <= ?1 ORDER BY due_at, id LIMIT ?2;
