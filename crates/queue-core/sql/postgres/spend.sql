-- Purpose:   what provider calls used and cost.
-- Arguments: the columns in the order below up to `credential`; arrays of one length, in the order of the key.
-- Returns:   job_id, call_id, epoch of those that were not recorded before.
-- Invariant: what an attempt paid for a call is counted once, however often it is reported, and whatever became of it.
--            A second answer to a call is superseded: the first one stays. One to a dead letter's call died with it. Who else may write rows of these jobs now has
--            been waited for (`jobs_lock`), so that one row opens its job.
INSERT INTO spend (job_id, call_id, tenant, queue, kind, operation, epoch, step, sequence, provider, model, status,
                   billed, tokens_in, tokens_out, tokens_cached, tokens_cache_write, tokens_reasoning,
                   tokens_cache_write_long, tokens_audio_in, tokens_audio_out, tier, usage_source, cost_nanousd,
                   price_version, duration_ms, provider_request_id, at, key_id, credential, opens_job, waste)
SELECT job_id, call_id, tenant, queue, kind, operation, epoch, step, sequence, provider, model, status, billed,
       tokens_in, tokens_out, tokens_cached, tokens_cache_write, tokens_reasoning, tokens_cache_write_long,
       tokens_audio_in, tokens_audio_out, tier, usage_source, cost_nanousd, price_version, duration_ms,
       provider_request_id, at, key_id, credential,
       row_number() OVER (PARTITION BY job_id ORDER BY place) = 1
           AND NOT EXISTS (SELECT 1 FROM spend k WHERE k.job_id = ANY (ARRAY[e.job_id])),
       CASE WHEN status = 'ok'
                 AND (row_number() OVER (PARTITION BY job_id, call_id ORDER BY place) > 1
                      OR EXISTS (SELECT 1 FROM spend k
                                 WHERE k.job_id = ANY (ARRAY[e.job_id]) AND k.call_id = ANY (ARRAY[e.call_id])
                                   AND k.status = 'ok'))
            THEN 'superseded'
            WHEN status = 'ok' AND EXISTS (SELECT 1 FROM jobs j WHERE j.id = ANY (ARRAY[e.job_id]) AND j.standing = 2)
            THEN 'died' END
FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::text[], $7::bigint[], $8::text[],
            $9::bigint[], $10::text[], $11::text[], $12::text[], $13::text[], $14::bigint[], $15::bigint[],
            $16::bigint[], $17::bigint[], $18::bigint[], $19::bigint[], $20::bigint[], $21::bigint[], $22::text[],
            $23::text[], $24::bigint[], $25::text[], $26::bigint[], $27::text[], $28::bigint[], $29::text[], $30::text[])
     WITH ORDINALITY
     AS e (job_id, call_id, tenant, queue, kind, operation, epoch, step, sequence, provider, model, status, billed,
           tokens_in, tokens_out, tokens_cached, tokens_cache_write, tokens_reasoning, tokens_cache_write_long,
           tokens_audio_in, tokens_audio_out, tier, usage_source, cost_nanousd, price_version, duration_ms,
           provider_request_id, at, key_id, credential, place)
ORDER BY place
ON CONFLICT (job_id, call_id, epoch) DO NOTHING
RETURNING job_id, call_id, epoch
