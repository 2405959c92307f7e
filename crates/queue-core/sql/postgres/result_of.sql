-- Purpose:   the result of a succeeded job.
-- Arguments: 1 id.
-- Returns:   body.
-- Invariant: writes nothing.
SELECT result FROM settled_jobs WHERE id = $1 AND result IS NOT NULL
