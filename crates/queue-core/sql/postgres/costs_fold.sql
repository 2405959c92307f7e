-- Purpose:   moves lines from `cost_tail` into the sums of their days.
-- Arguments: 1 most lines.
-- Returns:   how many lines were moved.
-- Invariant: one statement deletes a line and adds it, so each is added once, whenever its writer committed and whatever
--            ends this process. Of several at once one works and the others find nothing: two that raise the same days
--            in another order would wait for each other. Raised in the order of the key all the same.
WITH taken AS (
    DELETE FROM cost_tail
    WHERE id = ANY (ARRAY(
        SELECT id FROM cost_tail ORDER BY id
        LIMIT CASE WHEN pg_try_advisory_xact_lock(x'4c53484f'::integer, 3) THEN $1::bigint ELSE 0 END
        FOR UPDATE SKIP LOCKED
    ))
    RETURNING *
), folded AS (
    INSERT INTO cost_days AS d
        (day, tenant, queue, kind, operation, provider, model, calls, calls_maybe, calls_unpriced, jobs, tokens_in,
        tokens_out, tokens_cached, tokens_cache_write, tokens_reasoning, tokens_cache_write_long, tokens_audio_in,
        tokens_audio_out, spend_nanousd, wasted_nanousd, charge_nanousd, saved_memo_nanousd, saved_cache_nanousd,
        saved_coalesced_nanousd, saved_singleflight_nanousd, saved_answers, saved_unpriced)
    SELECT day, tenant, queue, kind, operation, provider, model, sum(calls), sum(calls_maybe), sum(calls_unpriced),
    sum(jobs), sum(tokens_in), sum(tokens_out), sum(tokens_cached), sum(tokens_cache_write), sum(tokens_reasoning),
    sum(tokens_cache_write_long), sum(tokens_audio_in), sum(tokens_audio_out), sum(spend_nanousd),
    sum(wasted_nanousd), sum(charge_nanousd), sum(saved_memo_nanousd), sum(saved_cache_nanousd),
    sum(saved_coalesced_nanousd), sum(saved_singleflight_nanousd), sum(saved_answers), sum(saved_unpriced)
    FROM taken
    GROUP BY day, tenant, queue, kind, operation, provider, model
    ORDER BY day, tenant, queue, kind, operation, provider, model
    ON CONFLICT (day, tenant, queue, kind, operation, provider, model) DO UPDATE
    SET calls = d.calls + excluded.calls, calls_maybe = d.calls_maybe + excluded.calls_maybe, calls_unpriced =
    d.calls_unpriced + excluded.calls_unpriced, jobs = d.jobs + excluded.jobs, tokens_in = d.tokens_in +
    excluded.tokens_in, tokens_out = d.tokens_out + excluded.tokens_out, tokens_cached = d.tokens_cached +
    excluded.tokens_cached, tokens_cache_write = d.tokens_cache_write + excluded.tokens_cache_write, tokens_reasoning
    = d.tokens_reasoning + excluded.tokens_reasoning, tokens_cache_write_long = d.tokens_cache_write_long +
    excluded.tokens_cache_write_long, tokens_audio_in = d.tokens_audio_in + excluded.tokens_audio_in, tokens_audio_out
    = d.tokens_audio_out + excluded.tokens_audio_out, spend_nanousd = d.spend_nanousd + excluded.spend_nanousd,
    wasted_nanousd = d.wasted_nanousd + excluded.wasted_nanousd, charge_nanousd = d.charge_nanousd +
    excluded.charge_nanousd, saved_memo_nanousd = d.saved_memo_nanousd + excluded.saved_memo_nanousd,
    saved_cache_nanousd = d.saved_cache_nanousd + excluded.saved_cache_nanousd, saved_coalesced_nanousd =
    d.saved_coalesced_nanousd + excluded.saved_coalesced_nanousd, saved_singleflight_nanousd =
    d.saved_singleflight_nanousd + excluded.saved_singleflight_nanousd, saved_answers = d.saved_answers +
    excluded.saved_answers, saved_unpriced = d.saved_unpriced + excluded.saved_unpriced
)
SELECT count(*) FROM taken
