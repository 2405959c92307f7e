-- Purpose:   what jobs of an API key have spent since a day and since a month began.
-- Arguments: 1 start of the month, 2 start of the day, 3 the key's id.
-- Returns:   nano-USD of the day and of the month, tokens of the day and of the month.
-- Invariant: reads sums. One statement, so it is exact while lines are folded.
SELECT coalesce(sum(spend_nanousd) FILTER (WHERE day >= $2), 0)::bigint, coalesce(sum(spend_nanousd), 0)::bigint,
       coalesce(sum(tokens) FILTER (WHERE day >= $2), 0)::bigint, coalesce(sum(tokens), 0)::bigint
FROM (
    SELECT day, spend_nanousd, tokens FROM key_days WHERE day >= $1 AND key_id = $3
    UNION ALL
    SELECT day, spend_nanousd, tokens FROM key_tail WHERE day >= $1 AND key_id = $3
) AS lines
