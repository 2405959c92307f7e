-- Purpose:   one row of a backup.
-- Arguments: 1 id.
-- Returns:   id, ordered_at, work, beat, record.
-- Invariant: at most one.
SELECT id, ordered_at, work, beat, record FROM backups WHERE id = ?1
