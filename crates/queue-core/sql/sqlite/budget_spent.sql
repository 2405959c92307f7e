-- Purpose:   what a tenant or everybody has spent since a day and since a month began.
-- Arguments: 1 start of the month, 2 start of the day, 3 tenant or NULL for everybody.
-- Returns:   nano-USD of the day and of the month, tokens of the day and of the month.
-- Invariant: reads sums: its cost grows with the labels of a month.
SELECT coalesce(sum(spend_nanousd) FILTER (WHERE day >= ?2), 0), coalesce(sum(spend_nanousd), 0),
       coalesce(sum(tokens_in + tokens_out) FILTER (WHERE day >= ?2), 0), coalesce(sum(tokens_in + tokens_out), 0)
FROM cost_days
WHERE day >= ?1 AND (?3 IS NULL OR tenant = ?3);
