-- Purpose:   a page of operations, newest first.
-- Arguments: 1 behind this id or NULL, 2 only those that run, 3 limit.
-- Returns:   the columns of an operation.
-- Invariant: those that have ended are forgotten after some time, so that there are never many.
SELECT id, action, goal, queue, dry_run, filter, rate_per_s, max_jobs, max_cost_nanousd, force, reason, asked_by, state,
       owner, beat, behind, matched, done, skipped, failed, cost_nanousd, unestimated, error, accepted_at, finished_at
FROM operations
WHERE id < coalesce(?1, x'FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF') AND (NOT ?2 OR state = 'running')
ORDER BY id DESC
LIMIT ?3;
