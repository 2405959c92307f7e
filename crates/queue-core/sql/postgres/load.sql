-- Purpose:   the preflight: claimed jobs with their payloads, as far as they may run now.
-- Arguments: 1 ids, 2 epochs of the claims; arrays of one length; 3 now.
-- Returns:   the columns of job_rows, then the payload, then the place of the claim counted from 1; no row for a job
--            that moved on, ended or is not due.
-- Invariant: writes nothing.
SELECT j.id, j.tenant, j.queue, j.kind, j.target, j.priority, j.standing, j.epoch, j.attempts, j.max_attempts,
       j.recoveries, j.releases, j.redrives, j.run_at, j.start_by, j.deadline, j.timeout_ms, j.accepted_at,
       j.finished_at, j.unique_key, j.operation, j.batch_id, j.tags, j.request_id, j.traceparent, j.error, j.served_by,
       j.tokens_in, j.tokens_out, j.tokens_cached, j.tokens_cache_write, j.tokens_reasoning, j.cost_nanousd,
       j.cost_unknown, NULL::text AS cancel_reason, j.error_class, j.error_signature, j.concurrency_key,
       p.body, claim.place
FROM unnest($1::uuid[], $2::bigint[]) WITH ORDINALITY AS claim (id, epoch, place)
JOIN jobs j ON j.id = claim.id
JOIN payloads p ON p.id = claim.id
WHERE j.epoch = claim.epoch AND j.standing < 1 AND j.run_at <= $3
