-- Purpose:   what one provider call used and cost.
-- Arguments: the columns in the order below.
-- Returns:   nothing; 1 row changed, or 0 where the call was recorded before.
-- Invariant: what an attempt paid for a call is counted once, however often it is reported, and whatever became of it.
INSERT INTO spend (job_id, call_id, tenant, queue, kind, operation, epoch, step, sequence, provider, model, status,
                   billed, tokens_in, tokens_out, tokens_cached, tokens_cache_write, tokens_reasoning, usage_source,
                   cost_nanousd, price_version, duration_ms, provider_request_id, at)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22, ?23, ?24)
ON CONFLICT (job_id, call_id, epoch) DO NOTHING;
