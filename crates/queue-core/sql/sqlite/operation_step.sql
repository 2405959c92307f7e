-- Purpose:   notes what a step did and how far it came.
-- Arguments: 1 id, 2 behind or NULL, 3 matched, 4 done, 5 skipped, 6 failed, 7 cost_nanousd, 8 unestimated: what is added;
--            9 the state after it, 10 error or NULL, 11 when it ended or NULL.
-- Returns:   the columns of an operation.
-- Invariant: follows `operation_hold` and the effects in their transaction.
UPDATE operations
SET beat = beat + 1, behind = coalesce(?2, behind), matched = matched + ?3, done = done + ?4, skipped = skipped + ?5,
    failed = failed + ?6, cost_nanousd = cost_nanousd + ?7, unestimated = unestimated + ?8, state = ?9, error = ?10,
    finished_at = ?11
WHERE id = ?1
RETURNING id, action, goal, queue, dry_run, filter, rate_per_s, max_jobs, max_cost_nanousd, force, reason, asked_by,
          state, owner, beat, behind, matched, done, skipped, failed, cost_nanousd, unestimated, error, accepted_at,
          finished_at;
