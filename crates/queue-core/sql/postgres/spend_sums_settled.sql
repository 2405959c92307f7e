-- Purpose:   `spend_sums` for jobs that have left the hot table.
-- Arguments: as `spend_sums`.
-- Returns:   nothing.
-- Invariant: follows `spend_sums`, which has waited for a settle that moved the row meanwhile.
UPDATE settled_jobs j
SET calls = j.calls + e.calls, tokens_in = j.tokens_in + e.tokens_in, tokens_out = j.tokens_out + e.tokens_out,
    tokens_cached = j.tokens_cached + e.tokens_cached, tokens_cache_write = j.tokens_cache_write + e.tokens_cache_write,
    tokens_reasoning = j.tokens_reasoning + e.tokens_reasoning, cost_nanousd = j.cost_nanousd + e.cost_nanousd,
    cost_unknown = j.cost_unknown OR e.cost_unknown
FROM unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[],
            $8::bigint[], $9::boolean[])
     AS e (id, calls, tokens_in, tokens_out, tokens_cached, tokens_cache_write, tokens_reasoning, cost_nanousd,
           cost_unknown)
WHERE j.id = e.id
