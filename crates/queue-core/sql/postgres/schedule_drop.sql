-- Purpose:   forgets a schedule.
-- Arguments: 1 id.
-- Returns:   nothing; 1 row changed where there was one.
-- Invariant: a scheduler that has claimed it finds nothing to advance.
DELETE FROM schedules WHERE id = $1
