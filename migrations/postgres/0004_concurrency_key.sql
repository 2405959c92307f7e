-- Concurrency keys: of the jobs of one tenant and queue with the same key only so many run at once. Columns without a
-- default: no table is written anew.

ALTER TABLE jobs ADD COLUMN concurrency_key text COLLATE "C";
ALTER TABLE settled_jobs ADD COLUMN concurrency_key text COLLATE "C";
ALTER TABLE queues ADD COLUMN key_concurrency bigint;

-- A job as `journal::postgres::rows::job` reads it: the order of these columns is its contract. Replaced and not made
-- anew, so that the rights on it stay.
CREATE OR REPLACE VIEW job_rows AS
SELECT id, tenant, queue, kind, target, priority, standing, epoch, attempts, max_attempts, recoveries, releases,
       redrives, run_at, start_by, deadline, timeout_ms, accepted_at, finished_at, unique_key, operation, batch_id,
       tags, request_id, traceparent, error, served_by, tokens_in, tokens_out, tokens_cached, tokens_cache_write,
       tokens_reasoning, cost_nanousd, cost_unknown, NULL::text AS cancel_reason, error_class, error_signature,
       concurrency_key
FROM jobs
UNION ALL
SELECT id, tenant, queue, kind, target, priority, standing, epoch, attempts, max_attempts, recoveries, releases,
       redrives, run_at, start_by, deadline, timeout_ms, accepted_at, finished_at, unique_key, operation, batch_id,
       tags, request_id, traceparent, error, served_by, tokens_in, tokens_out, tokens_cached, tokens_cache_write,
       tokens_reasoning, cost_nanousd, cost_unknown, cancel_reason, error_class, error_signature,
       concurrency_key
FROM settled_jobs;
