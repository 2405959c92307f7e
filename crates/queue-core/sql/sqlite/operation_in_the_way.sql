-- Purpose:   which operation kept a new one from being kept.
-- Arguments: 1 id of the new one, 2 action, 3 queue, 4 dry_run.
-- Returns:   the columns of an operation: the new one, if an earlier try has kept it, else the one that runs.
-- Invariant: writes nothing.
SELECT id, action, goal, queue, dry_run, filter, rate_per_s, max_jobs, max_cost_nanousd, force, reason, asked_by, state,
       owner, beat, behind, matched, done, skipped, failed, cost_nanousd, unestimated, error, accepted_at, finished_at
FROM operations
WHERE id = ?1 OR (action = ?2 AND queue = ?3 AND dry_run = ?4 AND state = 'running')
ORDER BY id = ?1 DESC
LIMIT 1;
