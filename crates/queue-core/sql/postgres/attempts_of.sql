-- Purpose:   the attempts of a job, oldest first.
-- Arguments: 1 id.
-- Returns:   epoch, number, outcome, session, started_at, finished_at, error.
-- Invariant: writes nothing.
SELECT epoch, number, outcome, session, started_at, finished_at, error FROM attempts WHERE job_id = $1
UNION ALL
SELECT epoch, attempts, 'succeed', session, began_at, finished_at, NULL FROM settled_jobs WHERE id = $1 AND standing = 1
ORDER BY epoch
