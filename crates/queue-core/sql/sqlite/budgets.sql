-- Purpose:   every budget that was ever set.
-- Arguments: none.
-- Returns:   scope, version, day_nanousd, month_nanousd, day_tokens, month_tokens, at_limit, degrade_to.
-- Invariant: cost depends on the number of budgets.
SELECT scope, version, day_nanousd, month_nanousd, day_tokens, month_tokens, at_limit, degrade_to FROM budgets;
