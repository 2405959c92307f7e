-- Purpose:   a dead letter with its payload, as an archive keeps it.
-- Arguments: 1 id, 2 the epoch at which it was found dead.
-- Returns:   id, tenant, queue, kind, target, priority, epoch, attempts, max_attempts, recoveries, releases, redrives,
--            run_at, start_by, deadline, timeout_ms, accepted_at, finished_at, unique_key, concurrency_key, operation,
--            batch_id, tags, request_id, traceparent, error, served_by, calls, tokens_in, tokens_out, tokens_cached,
--            tokens_cache_write, tokens_reasoning, cost_nanousd, cost_unknown, key_id, max_cost_nanousd, webhook, body,
--            fallback; no row for a job that is not dead at that epoch.
-- Invariant: writes nothing.
SELECT j.id, j.tenant, j.queue, j.kind, j.target, j.priority, j.epoch, j.attempts, j.max_attempts, j.recoveries,
       j.releases, j.redrives, j.run_at, j.start_by, j.deadline, j.timeout_ms, j.accepted_at, j.finished_at,
       j.unique_key, j.concurrency_key, j.operation, j.batch_id, j.tags, j.request_id, j.traceparent, j.error,
       j.served_by, j.calls, j.tokens_in, j.tokens_out, j.tokens_cached, j.tokens_cache_write, j.tokens_reasoning,
       j.cost_nanousd, j.cost_unknown, j.key_id, j.max_cost_nanousd, j.webhook, p.body, p.fallback
FROM jobs j JOIN payloads p ON p.seq = j.seq
WHERE j.id = ?1 AND j.epoch = ?2 AND j.standing = 2;
