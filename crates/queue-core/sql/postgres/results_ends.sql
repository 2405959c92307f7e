-- Purpose:   how jobs stand, and when they ended.
-- Arguments: 1 ids.
-- Returns:   id, standing, finished_at of those that are there.
-- Invariant: writes nothing.
SELECT id, standing, finished_at FROM settled_jobs WHERE id = ANY ($1::uuid[])
UNION ALL
SELECT id, standing, finished_at FROM jobs WHERE id = ANY ($1::uuid[])
