-- Purpose:   rows of backups, newest first.
-- Arguments: 1 and 2 moment and id of the row that they follow, 3 how many.
-- Returns:   id, ordered_at, work, beat, record.
-- Invariant: along an index.
SELECT id, ordered_at, work, beat, record
FROM backups
WHERE (ordered_at, id) < (?1, ?2)
ORDER BY ordered_at DESC, id DESC
LIMIT ?3
