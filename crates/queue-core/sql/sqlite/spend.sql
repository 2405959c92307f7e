-- Purpose:   what one provider call used and cost.
-- Arguments: the columns in the order below up to `credential`.
-- Returns:   nothing; 1 row changed, or 0 where the call was recorded before.
-- Invariant: what an attempt paid for a call is counted once, however often it is reported, and whatever became of it.
--            A second answer to a call is superseded: the first one stays. One to a dead letter's call died with it.
INSERT INTO spend (job_id, call_id, tenant, queue, kind, operation, epoch, step, sequence, provider, model, status,
                   billed, tokens_in, tokens_out, tokens_cached, tokens_cache_write, tokens_reasoning,
                   tokens_cache_write_long, tokens_audio_in, tokens_audio_out, tier, usage_source, cost_nanousd,
                   price_version, duration_ms, provider_request_id, at, key_id, credential, opens_job, waste)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22, ?23, ?24,
        ?25, ?26, ?27, ?28, ?29, ?30, NOT EXISTS (SELECT 1 FROM spend WHERE job_id = ?1),
        CASE WHEN ?12 = 'ok'
                  AND EXISTS (SELECT 1 FROM spend WHERE job_id = ?1 AND call_id = ?2 AND status = 'ok')
             THEN 'superseded'
             WHEN ?12 = 'ok' AND EXISTS (SELECT 1 FROM jobs WHERE id = ?1 AND standing = 2) THEN 'died' END)
ON CONFLICT (job_id, call_id, epoch) DO NOTHING;
