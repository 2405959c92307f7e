-- Purpose:   the end of a step of a walk over all jobs, newest first.
-- Arguments: 1 before this id or NULL, 2 rows of the step less one.
-- Returns:   the id of the step's last row; no row where fewer are left.
-- Invariant: visits entries of one index only, as many as the step has.
SELECT id FROM jobs
WHERE TRUE AND id < coalesce(?1, x'FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF')
ORDER BY id DESC
LIMIT 1 OFFSET ?2;
