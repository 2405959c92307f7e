-- Purpose:   one operation.
-- Arguments: 1 id.
-- Returns:   the columns of an operation.
-- Invariant: writes nothing.
SELECT id, action, goal, queue, dry_run, filter, rate_per_s, max_jobs, max_cost_nanousd, force, reason, asked_by, state,
       owner, beat, behind, matched, done, skipped, failed, cost_nanousd, unestimated, error, accepted_at, finished_at
FROM operations
WHERE id = $1
