-- Purpose:   the provider calls of a job, oldest first.
-- Arguments: 1 job_id.
-- Returns:   the columns of spend in the order below.
-- Invariant: writes nothing.
SELECT job_id, call_id, tenant, queue, kind, operation, epoch, step, sequence, provider, model, status, billed,
       tokens_in, tokens_out, tokens_cached, tokens_cache_write, tokens_reasoning, tokens_cache_write_long,
       tokens_audio_in, tokens_audio_out, tier, usage_source, cost_nanousd, price_version, duration_ms,
       provider_request_id, at, key_id, credential
FROM spend
WHERE job_id = $1
ORDER BY at, seq
