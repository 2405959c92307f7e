-- Purpose:   the operation for the step of whoever walks it.
-- Arguments: 1 id, 2 owner, 3 the beat that it has seen.
-- Returns:   the columns of an operation; no row where it is not that walker's any more.
-- Invariant: first in the transaction of a step.
SELECT id, action, goal, queue, dry_run, filter, rate_per_s, max_jobs, max_cost_nanousd, force, reason, asked_by, state,
       owner, beat, behind, matched, done, skipped, failed, cost_nanousd, unestimated, error, accepted_at, finished_at
FROM operations
WHERE id = ?1 AND owner = ?2 AND beat = ?3 AND state = 'running';
