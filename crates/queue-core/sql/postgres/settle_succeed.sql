-- Purpose:   ends attempts with a result: moves each job out of the hot table together with its attempt, charges it and
--            frees its unique key.
-- Arguments: 1 ids, in order, 2 epochs of the claims, 3 started_at, 4 finished_at, 5 sessions, 6 served_by, 7 results,
--            8 calls, 9 tokens_in, 10 tokens_out, 11 tokens_cached, 12 tokens_cache_write, 13 tokens_reasoning,
--            14 cost_nanousd, 15 cost_unknown; arrays of one length; 16 the incarnation in which the attempts began.
-- Returns:   id, queue, tenant, run_at of the jobs that were live at the claimed epoch; the rest is fenced.
-- Invariant: what is to be told of an end is written with it; where nobody wants to hear, that is a look at no rows.
--            Takes only a row that is live at the claimed epoch in this life of the journal, and takes it once. The
--            last error outlives the success. A job that called nobody is not charged.
WITH done AS (
    DELETE FROM jobs j
    USING unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::bigint[], $5::uuid[], $6::text[], $7::bytea[],
                 $8::bigint[], $9::bigint[], $10::bigint[], $11::bigint[], $12::bigint[], $13::bigint[], $14::bigint[],
                 $15::boolean[])
          AS e (id, epoch, started_at, finished_at, session, served_by, result, calls, tokens_in, tokens_out,
                tokens_cached, tokens_cache_write, tokens_reasoning, cost_nanousd, cost_unknown)
    WHERE j.id = ANY (ARRAY[e.id]) AND j.epoch = e.epoch AND j.standing < 1
      AND EXISTS (SELECT 1 FROM meta WHERE incarnation = $16)
    RETURNING j.*, e.started_at AS began_at, e.finished_at AS ended_at, '' AS everybody, e.session, e.served_by AS answered_by, e.result,
              j.calls + e.calls AS all_calls, j.tokens_in + e.tokens_in AS all_in,
              j.tokens_out + e.tokens_out AS all_out, j.tokens_cached + e.tokens_cached AS all_cached,
              j.tokens_cache_write + e.tokens_cache_write AS all_written,
              j.tokens_reasoning + e.tokens_reasoning AS all_reasoning, j.cost_nanousd + e.cost_nanousd AS all_cost,
              j.cost_unknown OR e.cost_unknown AS any_unknown
), moved AS (
    INSERT INTO settled_jobs (id, tenant, queue, kind, target, priority, standing, epoch, attempts, max_attempts,
                              recoveries, releases, redrives, run_at, start_by, deadline, timeout_ms, accepted_at,
                              finished_at, unique_key, operation, batch_id, tags, request_id, traceparent, error,
                              error_class, error_signature, served_by, calls, tokens_in, tokens_out, tokens_cached,
                              tokens_cache_write, tokens_reasoning, cost_nanousd, cost_unknown, result,
                              session, began_at, concurrency_key, key_id, max_cost_nanousd)
    SELECT id, tenant, queue, kind, target, priority, 1, epoch, attempts + 1, max_attempts, 0, 0, redrives, run_at,
           start_by, deadline, timeout_ms, accepted_at, ended_at, unique_key, operation, batch_id, tags, request_id,
           traceparent, error, error_class, error_signature, coalesce(answered_by, served_by), all_calls, all_in,
           all_out, all_cached, all_written, all_reasoning, all_cost, any_unknown, result,
           session, began_at, concurrency_key, key_id, max_cost_nanousd
    FROM done
), charged AS (
    INSERT INTO charges (job_id, tenant, queue, kind, operation, charge_nanousd, at)
    SELECT id, tenant, queue, kind, operation, all_cost, ended_at FROM done WHERE all_calls > 0
), told AS (
    INSERT INTO webhook_deliveries (endpoint_id, url, lane, tenant, event, job_id, at, due_at)
    SELECT e.id, NULL, e.id::text, d.tenant, 'job.succeeded', d.id, d.ended_at, d.ended_at
    FROM done d JOIN webhook_endpoints e ON e.tenant = d.tenant
    WHERE e.enabled AND e.events & 1 <> 0
    UNION ALL
    SELECT e.id, NULL, e.id::text, d.tenant, 'job.succeeded', d.id, d.ended_at, d.ended_at
    FROM done d JOIN webhook_endpoints e ON e.tenant = d.everybody
    WHERE e.enabled AND e.events & 1 <> 0
    UNION ALL
    SELECT NULL, d.webhook, 'own ' || d.tenant || ' ' || split_part(d.webhook, '/', 3), d.tenant, 'job.succeeded', d.id, d.ended_at, d.ended_at
    FROM done d
    WHERE d.webhook IS NOT NULL
), freed AS (
    DELETE FROM unique_keys k USING done d
    WHERE d.unique_key IS NOT NULL AND k.tenant = d.tenant AND k.key = d.unique_key AND k.job_id = d.id
)
SELECT id, queue, tenant, run_at FROM done
