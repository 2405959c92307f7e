-- Purpose:   the newest alerts of budgets, newest first.
-- Arguments: 1 limit.
-- Returns:   scope, measure, period, since, level, spent, budget, at.
-- Invariant: walks the end of the index of their times.
SELECT scope, measure, period, since, level, spent, budget, at
FROM budget_alerts
ORDER BY at DESC
LIMIT ?1;
