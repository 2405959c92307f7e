-- Purpose:   where a step of a list of one queue's dead letters ends: the so-manieth id backwards.
-- Arguments: 1 the id behind which the step starts, 2 rows of the step minus one, 3 queue.
-- Returns:   id; no row where fewer are left.
-- Invariant: visits as many rows as the step has.
SELECT id FROM jobs
WHERE standing = 2 AND queue = $3 AND id < coalesce($1::uuid, 'ffffffff-ffff-ffff-ffff-ffffffffffff')
ORDER BY id DESC OFFSET $2 LIMIT 1
