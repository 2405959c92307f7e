-- Purpose:   adds to the sums of jobs what calls cost that no settle of them counts, wherever the jobs stand.
-- Arguments: 1 ids, in order, 2 calls, 3 tokens_in, 4 tokens_out, 5 tokens_cached, 6 tokens_cache_write,
--            7 tokens_reasoning, 8 cost_nanousd, 9 cost_unknown; arrays of one length, each id once.
-- Returns:   one row: the ids that are in the hot table; the others are for `spend_sums_settled`.
-- Invariant: called only for rows that were really inserted; changes no state and asks for no epoch: money is never
--            fenced.
WITH added AS (
    UPDATE jobs j
    SET calls = j.calls + e.calls, tokens_in = j.tokens_in + e.tokens_in, tokens_out = j.tokens_out + e.tokens_out,
        tokens_cached = j.tokens_cached + e.tokens_cached,
        tokens_cache_write = j.tokens_cache_write + e.tokens_cache_write,
        tokens_reasoning = j.tokens_reasoning + e.tokens_reasoning, cost_nanousd = j.cost_nanousd + e.cost_nanousd,
        cost_unknown = j.cost_unknown OR e.cost_unknown
    FROM unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[],
                $8::bigint[], $9::boolean[])
         AS e (id, calls, tokens_in, tokens_out, tokens_cached, tokens_cache_write, tokens_reasoning, cost_nanousd,
               cost_unknown)
    WHERE j.id = ANY (ARRAY[e.id])
    RETURNING j.id
)
SELECT coalesce(array_agg(id), '{}') FROM added
