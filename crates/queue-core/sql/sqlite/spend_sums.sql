-- Purpose:   adds to a job's sums what calls cost that no settle of it counts.
-- Arguments: 1 id, 2 calls, 3 tokens_in, 4 tokens_out, 5 tokens_cached, 6 tokens_cache_write, 7 tokens_reasoning,
--            8 cost_nanousd, 9 cost_unknown.
-- Returns:   nothing.
-- Invariant: called only for rows that were really inserted; changes no state and asks for no epoch: money is never
--            fenced.
UPDATE jobs
SET calls = calls + ?2,
    tokens_in = tokens_in + ?3,
    tokens_out = tokens_out + ?4,
    tokens_cached = tokens_cached + ?5,
    tokens_cache_write = tokens_cache_write + ?6,
    tokens_reasoning = tokens_reasoning + ?7,
    cost_nanousd = cost_nanousd + ?8,
    cost_unknown = max(cost_unknown, ?9)
WHERE id = ?1;
