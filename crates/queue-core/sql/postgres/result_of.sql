-- Purpose:   the result of a succeeded job.
-- Arguments: 1 id.
-- Returns:   body.
-- Invariant: writes nothing. An empty one is gone: its time is over.
SELECT result FROM settled_jobs WHERE id = $1 AND octet_length(result) > 0
