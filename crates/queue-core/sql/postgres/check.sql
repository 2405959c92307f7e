-- Purpose:   finds out whether a write is committed.
-- Arguments: 1 now.
-- Returns:   nothing.
-- Invariant: writes, also where the value does not change.
UPDATE meta SET checked_at = $1
