-- Undoes 0004_concurrency_key.sql. Keys of jobs and the limits of queues are lost with it, and so are rights that were
-- given on the view.

DROP VIEW job_rows;
ALTER TABLE queues DROP COLUMN key_concurrency;
ALTER TABLE settled_jobs DROP COLUMN concurrency_key;
ALTER TABLE jobs DROP COLUMN concurrency_key;

CREATE VIEW job_rows AS
SELECT id, tenant, queue, kind, target, priority, standing, epoch, attempts, max_attempts, recoveries, releases,
       redrives, run_at, start_by, deadline, timeout_ms, accepted_at, finished_at, unique_key, operation, batch_id,
       tags, request_id, traceparent, error, served_by, tokens_in, tokens_out, tokens_cached, tokens_cache_write,
       tokens_reasoning, cost_nanousd, cost_unknown, NULL::text AS cancel_reason, error_class, error_signature
FROM jobs
UNION ALL
SELECT id, tenant, queue, kind, target, priority, standing, epoch, attempts, max_attempts, recoveries, releases,
       redrives, run_at, start_by, deadline, timeout_ms, accepted_at, finished_at, unique_key, operation, batch_id,
       tags, request_id, traceparent, error, served_by, tokens_in, tokens_out, tokens_cached, tokens_cache_write,
       tokens_reasoning, cost_nanousd, cost_unknown, cancel_reason, error_class, error_signature
FROM settled_jobs;
