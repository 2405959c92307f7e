-- Purpose:   ends an attempt: moves the job that `settle_find` found and adds what its calls used.
-- Arguments: 1 seq, 2 epoch of the claim, 3 standing after it, 4 added to epoch, 5 added to attempts, 6 whether it was
--            given back, 7 next run_at or NULL, 8 finished_at or NULL, 9 error, 10 its class, 11 its signature,
--            12 served_by, 13 calls, 14 tokens_in, 15 tokens_out, 16 tokens_cached, 17 tokens_cache_write,
--            18 tokens_reasoning, 19 cost_nanousd, 20 cost_unknown, 21 the target of its
--            lane from now on or NULL.
-- Returns:   nothing; exactly 1 row changed.
-- Invariant: changes only a row that is live at the claimed epoch. The last error outlives a later success.
UPDATE jobs
SET standing = ?3,
    epoch = epoch + ?4,
    attempts = attempts + ?5,
    releases = CASE WHEN ?6 THEN releases + 1 ELSE 0 END,
    recoveries = 0,
    run_at = coalesce(?7, run_at),
    target = coalesce(?21, target),
    finished_at = ?8,
    error = coalesce(?9, error),
    error_class = coalesce(?10, error_class),
    error_signature = coalesce(?11, error_signature),
    served_by = coalesce(?12, served_by),
    calls = calls + ?13,
    tokens_in = tokens_in + ?14,
    tokens_out = tokens_out + ?15,
    tokens_cached = tokens_cached + ?16,
    tokens_cache_write = tokens_cache_write + ?17,
    tokens_reasoning = tokens_reasoning + ?18,
    cost_nanousd = cost_nanousd + ?19,
    cost_unknown = max(cost_unknown, ?20)
WHERE seq = ?1 AND epoch = ?2 AND standing = 0;
