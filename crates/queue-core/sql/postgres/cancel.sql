-- Purpose:   ends a live job because someone asked for it: moves it out of the hot table.
-- Arguments: 1 id, 2 finished_at, 3 reason, 4 the epoch of an attempt that is interrupted, 5 its session, 6 when it
--            started; NULL where none runs.
-- Returns:   epoch after it, queue, tenant; no row for a job that is final or missing.
-- Invariant: a running attempt is fenced: its row is gone.
WITH done AS (
    DELETE FROM jobs WHERE id = $1 AND standing < 1 RETURNING *, $2::bigint AS ended_at, '' AS everybody
), moved AS (
    INSERT INTO settled_jobs (id, tenant, queue, kind, target, priority, standing, epoch, attempts, max_attempts,
                              recoveries, releases, redrives, run_at, start_by, deadline, timeout_ms, accepted_at,
                              finished_at, unique_key, operation, batch_id, tags, request_id, traceparent, error,
                              error_class, error_signature, served_by, cancel_reason, calls, tokens_in, tokens_out,
                              tokens_cached, tokens_cache_write, tokens_reasoning, cost_nanousd, cost_unknown,
                              concurrency_key, key_id, max_cost_nanousd)
    SELECT id, tenant, queue, kind, target, priority, 3, epoch + 1, attempts, max_attempts, recoveries, releases,
           redrives, run_at, start_by, deadline, timeout_ms, accepted_at, $2, unique_key, operation, batch_id, tags,
           request_id, traceparent, error, error_class, error_signature, served_by, $3, calls, tokens_in, tokens_out,
           tokens_cached, tokens_cache_write, tokens_reasoning, cost_nanousd, cost_unknown, concurrency_key, key_id,
           max_cost_nanousd
    FROM done
), interrupted AS (
    INSERT INTO attempts (job_id, tenant, epoch, number, outcome, session, started_at, finished_at)
    SELECT id, tenant, epoch, attempts + 1, 'cancel', $5::uuid, $6::bigint, $2 FROM done WHERE epoch = $4::bigint
), told AS (
    INSERT INTO webhook_deliveries (endpoint_id, url, lane, tenant, event, job_id, at, due_at)
    SELECT e.id, NULL, e.id::text, d.tenant, 'job.cancelled', d.id, d.ended_at, d.ended_at
    FROM done d JOIN webhook_endpoints e ON e.tenant = d.tenant
    WHERE e.enabled AND e.events & 4 <> 0
    UNION ALL
    SELECT e.id, NULL, e.id::text, d.tenant, 'job.cancelled', d.id, d.ended_at, d.ended_at
    FROM done d JOIN webhook_endpoints e ON e.tenant = d.everybody
    WHERE e.enabled AND e.events & 4 <> 0
    UNION ALL
    SELECT NULL, d.webhook, 'own ' || d.tenant || ' ' || split_part(d.webhook, '/', 3), d.tenant, 'job.cancelled', d.id, d.ended_at, d.ended_at
    FROM done d
    WHERE d.webhook IS NOT NULL
), freed AS (
    DELETE FROM unique_keys k USING done d
    WHERE d.unique_key IS NOT NULL AND k.tenant = d.tenant AND k.key = d.unique_key AND k.job_id = d.id
)
SELECT epoch + 1, queue, tenant FROM done
