-- Purpose:   replaces a budget.
-- Arguments: 1 scope, 2 day_nanousd, 3 month_nanousd, 4 day_tokens, 5 month_tokens, 6 at_limit, 7 degrade_to.
-- Returns:   the new version.
-- Invariant: versions grow by one with every change, and begin at 2: 1 is what a configuration gives.
INSERT INTO budgets AS b (scope, version, day_nanousd, month_nanousd, day_tokens, month_tokens, at_limit, degrade_to)
VALUES ($1, 2, $2, $3, $4, $5, $6, $7)
ON CONFLICT (scope) DO UPDATE
SET version = b.version + 1, day_nanousd = excluded.day_nanousd, month_nanousd = excluded.month_nanousd,
    day_tokens = excluded.day_tokens, month_tokens = excluded.month_tokens, at_limit = excluded.at_limit,
    degrade_to = excluded.degrade_to
RETURNING version
