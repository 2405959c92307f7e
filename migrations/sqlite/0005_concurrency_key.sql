-- Concurrency keys: of the jobs of one tenant and queue with the same key only so many run at once.

ALTER TABLE jobs ADD COLUMN concurrency_key TEXT;
ALTER TABLE queues ADD COLUMN key_concurrency INTEGER;

DROP VIEW job_rows;

-- A job as `journal::sqlite::rows::job` reads it: the order of these columns is its contract. Class and signature of
-- the error are only there to narrow lists.
CREATE VIEW job_rows AS
SELECT seq, id, tenant, queue, kind, target, priority, standing, epoch, attempts, max_attempts, recoveries, releases,
       redrives, run_at, start_by, deadline, timeout_ms, accepted_at, finished_at, unique_key, operation, batch_id,
       tags, request_id, traceparent, error, served_by, tokens_in, tokens_out, tokens_cached, tokens_cache_write,
       tokens_reasoning, cost_nanousd, cost_unknown, cancel_reason, error_class, error_signature,
       concurrency_key
FROM jobs;
