-- Undoes 0008_credentials.sql. Tenants' keys and policies are lost with it: their jobs go on with the operator's keys.

DROP VIEW longshore_calls;
ALTER TABLE spend DROP COLUMN credential;
CREATE VIEW longshore_calls AS
SELECT to_timestamp(at / 1000.0) AS at, job_id, call_id, epoch, step, sequence, tenant, queue, kind, operation, provider,
       model, tier, status, billed, tokens_in, tokens_out, tokens_cached, tokens_cache_write, tokens_cache_write_long,
       tokens_reasoning, tokens_audio_in, tokens_audio_out, usage_source, cost_nanousd,
       (cost_nanousd * 0.000000001)::numeric(28, 9) AS cost_usd, price_version,
       CASE WHEN status <> 'ok' THEN 'failed' ELSE waste END AS waste, duration_ms, provider_request_id
FROM spend;
ALTER TABLE tenants DROP COLUMN credential_policy;
DROP TABLE credential_mark;
DROP TABLE credentials;
