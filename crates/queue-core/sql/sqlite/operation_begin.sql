-- Purpose:   keeps a new operation.
-- Arguments: 1 id, 2 action, 3 goal or NULL, 4 queue or '', 5 dry_run, 6 filter, 7 rate_per_s, 8 max_jobs or NULL,
--            9 max_cost_nanousd or NULL, 10 force, 11 reason or NULL, 12 asked_by, 13 accepted_at.
-- Returns:   nothing; 1 row changed, 0 where one of the same action and queue runs or the id is there.
-- Invariant: one of an action runs at a time in a queue, by constraint.
INSERT INTO operations (id, action, goal, queue, dry_run, filter, rate_per_s, max_jobs, max_cost_nanousd, force, reason,
                        asked_by, accepted_at)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)
ON CONFLICT DO NOTHING;
