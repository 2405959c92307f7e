-- Shows why a job was cancelled wherever a job is shown.

DROP VIEW job_rows;

-- A job as `journal::sqlite::rows::job` reads it: the order of these columns is its contract. What follows the cancel
-- reason is only there to narrow lists.
CREATE VIEW job_rows AS
SELECT seq, id, tenant, queue, kind, target, priority, standing, epoch, attempts, max_attempts, recoveries, releases,
       redrives, run_at, start_by, deadline, timeout_ms, accepted_at, finished_at, unique_key, operation, batch_id,
       tags, request_id, traceparent, error, served_by, tokens_in, tokens_out, tokens_cached, tokens_cache_write,
       tokens_reasoning, cost_nanousd, cost_unknown, cancel_reason, error_class, error_signature
FROM jobs;
