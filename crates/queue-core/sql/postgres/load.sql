-- Purpose:   the preflight: claimed jobs with their payloads, as far as they may run now.
-- Arguments: 1 ids of the claims, 2 now.
-- Returns:   the columns of job_rows, then payload and fallback chain; no row for a job that ended or is not due. Whether it is still
--            at the claim's epoch is for the caller to see: a join with the claims costs a sixth of this.
-- Invariant: writes nothing.
SELECT j.id, j.tenant, j.queue, j.kind, j.target, j.priority, j.standing, j.epoch, j.attempts, j.max_attempts,
       j.recoveries, j.releases, j.redrives, j.run_at, j.start_by, j.deadline, j.timeout_ms, j.accepted_at,
       j.finished_at, j.unique_key, j.operation, j.batch_id, j.tags, j.request_id, j.traceparent, j.error, j.served_by,
       j.tokens_in, j.tokens_out, j.tokens_cached, j.tokens_cache_write, j.tokens_reasoning, j.cost_nanousd,
       j.cost_unknown, NULL::text AS cancel_reason, j.error_class, j.error_signature, j.concurrency_key,
       j.key_id, j.max_cost_nanousd,
       p.body, p.fallback
FROM jobs j
JOIN payloads p ON p.id = j.id
WHERE j.id = ANY ($1::uuid[]) AND j.standing < 1 AND j.run_at <= $2
