-- Purpose:   spend and charge by one to three columns, dearest first.
-- Arguments: 1 to 3 the columns' words ('' for none), 4 since, 5 until, 6 whether charges can be told apart by them
--            (they belong to no model and no provider), 7 limit.
-- Returns:   three group values, calls, calls_maybe, calls_unpriced, jobs, five token sums, spend, wasted, charge.
-- Invariant: reads the rows of the period only; an unknown price adds to calls_unpriced and to no sum.
WITH lines AS (
    SELECT job_id, tenant, queue, kind, coalesce(operation, '') AS operation, provider, model,
           to_char(to_timestamp(at / 1000) AT TIME ZONE 'UTC', 'YYYY-MM-DD') AS day, 1 AS call,
           (billed = 'maybe')::integer AS maybe, (billed = 'yes' AND cost_nanousd IS NULL)::integer AS unpriced,
           tokens_in, tokens_out, tokens_cached, tokens_cache_write, tokens_reasoning,
           coalesce(cost_nanousd, 0) AS spend,
           CASE WHEN status = 'ok' THEN 0 ELSE coalesce(cost_nanousd, 0) END AS wasted, 0::bigint AS charge
    FROM spend
    WHERE at >= $4 AND at < $5
    UNION ALL
    SELECT job_id, tenant, queue, kind, coalesce(operation, ''), '', '',
           to_char(to_timestamp(at / 1000) AT TIME ZONE 'UTC', 'YYYY-MM-DD'), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
           charge_nanousd
    FROM charges
    WHERE $6::boolean AND at >= $4 AND at < $5
)
SELECT CASE $1 WHEN 'operation' THEN operation WHEN 'model' THEN model WHEN 'provider' THEN provider
               WHEN 'tenant' THEN tenant WHEN 'queue' THEN queue WHEN 'kind' THEN kind WHEN 'day' THEN day
               ELSE '' END AS first,
       CASE $2 WHEN 'operation' THEN operation WHEN 'model' THEN model WHEN 'provider' THEN provider
               WHEN 'tenant' THEN tenant WHEN 'queue' THEN queue WHEN 'kind' THEN kind WHEN 'day' THEN day
               ELSE '' END AS second,
       CASE $3 WHEN 'operation' THEN operation WHEN 'model' THEN model WHEN 'provider' THEN provider
               WHEN 'tenant' THEN tenant WHEN 'queue' THEN queue WHEN 'kind' THEN kind WHEN 'day' THEN day
               ELSE '' END AS third,
       sum(call)::bigint, sum(maybe)::bigint, sum(unpriced)::bigint, count(DISTINCT job_id), sum(tokens_in)::bigint,
       sum(tokens_out)::bigint, sum(tokens_cached)::bigint, sum(tokens_cache_write)::bigint,
       sum(tokens_reasoning)::bigint, sum(spend)::bigint AS spent, sum(wasted)::bigint, sum(charge)::bigint
FROM lines
GROUP BY first, second, third
ORDER BY spent DESC, first, second, third
LIMIT $7
