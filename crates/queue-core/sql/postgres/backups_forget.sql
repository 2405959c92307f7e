-- Purpose:   forgets rows of backups.
-- Arguments: 1 before when they were ordered.
-- Returns:   nothing.
-- Invariant: what is still to be done stays.
DELETE FROM backups WHERE ordered_at < $1 AND work = 0
