-- Purpose:   archives, newest first.
-- Arguments: 1 from behind this one on, or NULL, 2 only this one, or NULL, 3 limit.
-- Returns:   id, filter, reason, asked_by, began_at, objects, letters, bytes, cost_nanousd.
-- Invariant: writes nothing.
SELECT id, filter, reason, asked_by, began_at, objects, letters, bytes, cost_nanousd
FROM archives
WHERE id < coalesce(?1, x'ffffffffffffffffffffffffffffffff') AND id = coalesce(?2, id)
ORDER BY id DESC
LIMIT ?3;
