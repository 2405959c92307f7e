-- Purpose:   ends an operation because someone asked for it.
-- Arguments: 1 id, 2 finished_at.
-- Returns:   the columns of an operation; no row where it has ended or there is none.
-- Invariant: nothing is done for it after this has committed.
UPDATE operations SET state = 'aborted', finished_at = ?2
WHERE id = ?1 AND state = 'running'
RETURNING id, action, goal, queue, dry_run, filter, rate_per_s, max_jobs, max_cost_nanousd, force, reason, asked_by,
          state, owner, beat, behind, matched, done, skipped, failed, cost_nanousd, unestimated, error, accepted_at,
          finished_at;
