-- Purpose:   puts a letter back as it was: dead.
-- Arguments: 1 id, 2 tenant, 3 queue, 4 kind, 5 target, 6 priority, 7 epoch, 8 attempts, 9 max_attempts, 10 recoveries,
--            11 releases, 12 redrives, 13 run_at, 14 start_by, 15 deadline, 16 timeout_ms, 17 accepted_at,
--            18 finished_at, 19 unique_key, 20 concurrency_key, 21 operation, 22 batch_id, 23 tags, 24 request_id,
--            25 traceparent, 26 error, 27 error_class, 28 error_signature, 29 served_by, 30 calls, 31 tokens_in,
--            32 tokens_out, 33 tokens_cached, 34 tokens_cache_write, 35 tokens_reasoning, 36 cost_nanousd,
--            37 cost_unknown, 38 key_id, 39 max_cost_nanousd, 40 webhook.
-- Returns:   nothing.
-- Invariant: follows `restore_payload`, which found that the id is free. Nobody is told of its end again, and no unique
--            key is taken: it is dead.
INSERT INTO jobs (id, tenant, queue, kind, target, priority, standing, epoch, attempts, max_attempts, recoveries, releases,
                  redrives, run_at, start_by, deadline, timeout_ms, accepted_at, finished_at, unique_key,
                  concurrency_key, operation, batch_id, tags, request_id, traceparent, error, error_class,
                  error_signature, served_by, calls, tokens_in, tokens_out, tokens_cached, tokens_cache_write,
                  tokens_reasoning, cost_nanousd, cost_unknown, key_id, max_cost_nanousd, webhook)
VALUES ($1, $2, $3, $4, $5, $6, 2, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24,
        $25, $26, $27, $28, $29, $30, $31, $32, $33, $34, $35, $36, $37, $38, $39, $40)
