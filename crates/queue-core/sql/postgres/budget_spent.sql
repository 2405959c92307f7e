-- Purpose:   what a tenant or everybody has spent since a day and since a month began.
-- Arguments: 1 start of the month, 2 start of the day, 3 tenant or NULL for everybody.
-- Returns:   nano-USD of the day and of the month, tokens of the day and of the month.
-- Invariant: reads sums: its cost grows with the labels of a month. One statement, so it is exact while lines are folded.
SELECT coalesce(sum(spend_nanousd) FILTER (WHERE day >= $2), 0)::bigint, coalesce(sum(spend_nanousd), 0)::bigint,
       coalesce(sum(tokens) FILTER (WHERE day >= $2), 0)::bigint, coalesce(sum(tokens), 0)::bigint
FROM (
    SELECT day, tenant, spend_nanousd, tokens_in + tokens_out AS tokens FROM cost_days WHERE day >= $1
    UNION ALL
    SELECT day, tenant, spend_nanousd, tokens_in + tokens_out FROM cost_tail WHERE day >= $1
) AS lines
WHERE $3::text IS NULL OR tenant = $3
