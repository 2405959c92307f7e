-- Purpose:   notes that a budget has reached a level.
-- Arguments: 1 scope, 2 measure, 3 period, 4 start of the period, 5 level, 6 spent, 7 budget, 8 at.
-- Returns:   nothing; 1 row changed for whoever came first, 0 for everybody else.
-- Invariant: a level is noted once a period, over all processes.
INSERT INTO budget_alerts (scope, measure, period, since, level, spent, budget, at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
ON CONFLICT (scope, measure, period, since, level) DO NOTHING
