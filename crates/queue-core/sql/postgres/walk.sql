-- Purpose:   where a step of a list ends: the so-manieth id backwards.
-- Arguments: 1 the id behind which the step starts, 2 rows of the step minus one, 3 batch, 4 dead letters only.
--            NULL does not narrow.
-- Returns:   id; no row where fewer are left.
-- Invariant: visits as many rows as the step has.
SELECT id FROM job_rows
WHERE id < coalesce($1::uuid, 'ffffffff-ffff-ffff-ffff-ffffffffffff')
  AND ($3::text IS NULL OR batch_id = $3) AND (NOT $4::boolean OR standing = 2)
ORDER BY id DESC OFFSET $2 LIMIT 1
