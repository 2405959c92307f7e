-- Purpose:   makes somebody the one who walks an operation, or nobody.
-- Arguments: 1 id, 2 the beat that was seen, 3 the new owner or NULL.
-- Returns:   the columns of an operation; no row where it has ended or somebody else came first.
-- Invariant: whoever walked it before finds another beat, and does nothing any more.
UPDATE operations SET owner = $3, beat = beat + 1
WHERE id = $1 AND beat = $2 AND state = 'running'
RETURNING id, action, goal, queue, dry_run, filter, rate_per_s, max_jobs, max_cost_nanousd, force, reason, asked_by,
          state, owner, beat, behind, matched, done, skipped, failed, cost_nanousd, unestimated, error, accepted_at,
          finished_at
