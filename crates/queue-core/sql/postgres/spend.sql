-- Purpose:   what provider calls used and cost.
-- Arguments: the columns in the order below; arrays of one length, in the order of the key.
-- Returns:   job_id, call_id, epoch of those that were not recorded before.
-- Invariant: what an attempt paid for a call is counted once, however often it is reported, and whatever became of it.
INSERT INTO spend (job_id, call_id, tenant, queue, kind, operation, epoch, step, sequence, provider, model, status,
                   billed, tokens_in, tokens_out, tokens_cached, tokens_cache_write, tokens_reasoning, usage_source,
                   cost_nanousd, price_version, duration_ms, provider_request_id, at)
SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::text[], $7::bigint[], $8::text[],
                     $9::bigint[], $10::text[], $11::text[], $12::text[], $13::text[], $14::bigint[], $15::bigint[],
                     $16::bigint[], $17::bigint[], $18::bigint[], $19::text[], $20::bigint[], $21::text[],
                     $22::bigint[], $23::text[], $24::bigint[])
ON CONFLICT (job_id, call_id, epoch) DO NOTHING
RETURNING job_id, call_id, epoch
