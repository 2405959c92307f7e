-- Purpose:   notes an object, and adds it to its archive, which the first one makes.
-- Arguments: 1 id of the operation, 2 path, 3 tenant, 4 sha256, 5 bytes, 6 letters, 7 calls, 8 cost_nanousd,
--            9 first_ended_at, 10 last_ended_at.
-- Returns:   nothing.
-- Invariant: in the transaction that takes its letters out of the journal.
WITH noted AS (
    INSERT INTO archive_objects (archive_id, path, tenant, sha256, bytes, letters, calls, cost_nanousd, first_ended_at,
                                 last_ended_at)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
)
INSERT INTO archives AS a (id, filter, reason, asked_by, began_at, objects, letters, bytes, cost_nanousd)
SELECT id, filter, reason, asked_by, accepted_at, 1, $6, $5, $8 FROM operations WHERE id = $1
ON CONFLICT (id) DO UPDATE
SET objects = a.objects + 1, letters = a.letters + excluded.letters, bytes = a.bytes + excluded.bytes,
    cost_nanousd = a.cost_nanousd + excluded.cost_nanousd
