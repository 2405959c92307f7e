-- Purpose:   rows of backups with something to do, oldest first.
-- Arguments: 1 how many.
-- Returns:   id, ordered_at, work, beat, record.
-- Invariant: along an index of those rows alone.
SELECT id, ordered_at, work, beat, record
FROM backups
WHERE work > 0
ORDER BY ordered_at, id
LIMIT ?1
