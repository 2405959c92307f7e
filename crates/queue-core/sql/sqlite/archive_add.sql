-- Purpose:   adds an object to its archive, which the first one makes.
-- Arguments: 1 id of the operation, 2 bytes, 3 letters, 4 cost_nanousd.
-- Returns:   nothing.
-- Invariant: follows `archive_object_add` in its transaction.
INSERT INTO archives (id, filter, reason, asked_by, began_at, objects, letters, bytes, cost_nanousd)
SELECT id, filter, reason, asked_by, accepted_at, 1, ?3, ?2, ?4 FROM operations WHERE id = ?1
ON CONFLICT (id) DO UPDATE
SET objects = objects + 1, letters = letters + excluded.letters, bytes = bytes + excluded.bytes,
    cost_nanousd = cost_nanousd + excluded.cost_nanousd;
