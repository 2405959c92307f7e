-- Purpose:   the end of a step of a walk over the dead letters of one queue, newest first.
-- Arguments: 1 before this id or NULL, 2 rows of the step less one, 3 queue.
-- Returns:   the id of the step's last row; no row where fewer are left.
-- Invariant: visits entries of one index only, as many as the step has.
SELECT id FROM jobs
WHERE standing = 2 AND queue = ?3 AND id < coalesce(?1, x'FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF')
ORDER BY id DESC
LIMIT 1 OFFSET ?2;
