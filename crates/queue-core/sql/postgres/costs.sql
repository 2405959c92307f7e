-- Purpose:   spend, charge and savings by one to three columns, dearest first.
-- Arguments: 1 to 3 the columns' words ('' for none), 4 and 5 the first and the last whole day and one behind it,
--            6 and 7, 8 and 9 the parts of days before and behind those, 10 whether charges can be told apart by the
--            columns (they belong to no model and no provider), 11 a tenant or NULL, 12 limit.
-- Returns:   three group values, calls, calls_maybe, calls_unpriced, jobs, eight token sums, spend, wasted, charge, saved
--            by memo, cache, coalesced and singleflight, saved_answers, saved_unpriced.
-- Invariant: whole days are sums, of which there are as many as labels; only parts of days are read row by row. An
--            unknown price adds to calls_unpriced and to no sum.
WITH lines AS (
    SELECT day AS at, tenant, queue, kind, operation, provider, model, calls, calls_maybe, calls_unpriced, jobs, tokens_in,
           tokens_out, tokens_cached, tokens_cache_write, tokens_reasoning, tokens_cache_write_long, tokens_audio_in,
           tokens_audio_out, spend_nanousd, wasted_nanousd, charge_nanousd, saved_memo_nanousd, saved_cache_nanousd,
           saved_coalesced_nanousd, saved_singleflight_nanousd, saved_answers, saved_unpriced
    FROM cost_days
    WHERE day >= $4 AND day < $5
    UNION ALL
    SELECT day, tenant, queue, kind, operation, provider, model, calls, calls_maybe, calls_unpriced, jobs, tokens_in,
           tokens_out, tokens_cached, tokens_cache_write, tokens_reasoning, tokens_cache_write_long, tokens_audio_in,
           tokens_audio_out, spend_nanousd, wasted_nanousd, charge_nanousd, saved_memo_nanousd, saved_cache_nanousd,
           saved_coalesced_nanousd, saved_singleflight_nanousd, saved_answers, saved_unpriced
    FROM cost_tail
    WHERE day >= $4 AND day < $5
    UNION ALL
    SELECT at, tenant, queue, kind, operation, provider, model, calls, calls_maybe, calls_unpriced, jobs, tokens_in,
           tokens_out, tokens_cached, tokens_cache_write, tokens_reasoning, tokens_cache_write_long, tokens_audio_in,
           tokens_audio_out, spend_nanousd, wasted_nanousd, charge_nanousd, saved_memo_nanousd, saved_cache_nanousd,
           saved_coalesced_nanousd, saved_singleflight_nanousd, saved_answers, saved_unpriced
    FROM cost_lines
    WHERE at >= $6 AND at < $7
    UNION ALL
    SELECT at, tenant, queue, kind, operation, provider, model, calls, calls_maybe, calls_unpriced, jobs, tokens_in,
           tokens_out, tokens_cached, tokens_cache_write, tokens_reasoning, tokens_cache_write_long, tokens_audio_in,
           tokens_audio_out, spend_nanousd, wasted_nanousd, charge_nanousd, saved_memo_nanousd, saved_cache_nanousd,
           saved_coalesced_nanousd, saved_singleflight_nanousd, saved_answers, saved_unpriced
    FROM cost_lines
    WHERE at >= $8 AND at < $9
)
SELECT CASE $1 WHEN 'operation' THEN operation WHEN 'model' THEN model WHEN 'provider' THEN provider
               WHEN 'tenant' THEN tenant WHEN 'queue' THEN queue WHEN 'kind' THEN kind
               WHEN 'day' THEN to_char(to_timestamp(at / 1000) AT TIME ZONE 'UTC', 'YYYY-MM-DD')
               ELSE '' END AS first,
       CASE $2 WHEN 'operation' THEN operation WHEN 'model' THEN model WHEN 'provider' THEN provider
               WHEN 'tenant' THEN tenant WHEN 'queue' THEN queue WHEN 'kind' THEN kind
               WHEN 'day' THEN to_char(to_timestamp(at / 1000) AT TIME ZONE 'UTC', 'YYYY-MM-DD')
               ELSE '' END AS second,
       CASE $3 WHEN 'operation' THEN operation WHEN 'model' THEN model WHEN 'provider' THEN provider
               WHEN 'tenant' THEN tenant WHEN 'queue' THEN queue WHEN 'kind' THEN kind
               WHEN 'day' THEN to_char(to_timestamp(at / 1000) AT TIME ZONE 'UTC', 'YYYY-MM-DD')
               ELSE '' END AS third,
       sum(calls)::bigint, sum(calls_maybe)::bigint, sum(calls_unpriced)::bigint, sum(jobs)::bigint,
       sum(tokens_in)::bigint, sum(tokens_out)::bigint, sum(tokens_cached)::bigint, sum(tokens_cache_write)::bigint,
       sum(tokens_reasoning)::bigint, sum(tokens_cache_write_long)::bigint, sum(tokens_audio_in)::bigint,
       sum(tokens_audio_out)::bigint, sum(spend_nanousd)::bigint AS spent, sum(wasted_nanousd)::bigint,
       sum(charge_nanousd)::bigint, sum(saved_memo_nanousd)::bigint, sum(saved_cache_nanousd)::bigint,
       sum(saved_coalesced_nanousd)::bigint, sum(saved_singleflight_nanousd)::bigint, sum(saved_answers)::bigint,
       sum(saved_unpriced)::bigint
FROM lines
WHERE ($11::text IS NULL OR tenant = $11) AND ($10::boolean OR provider <> '')
GROUP BY first, second, third
ORDER BY spent DESC, first, second, third
LIMIT $12
