-- Purpose:   one new job, live at epoch 0.
-- Arguments: 1 id, 2 tenant, 3 queue, 4 kind, 5 target, 6 priority, 7 max_attempts, 8 run_at, 9 start_by, 10 deadline,
--            11 timeout_ms, 12 accepted_at, 13 unique_key, 14 operation, 15 batch_id, 16 tags, 17 request_id,
--            18 traceparent, 19 concurrency_key, 20 key_id, 21 max_cost_nanousd, 22 webhook.
-- Returns:   nothing; 1 row changed, or 0 where the id is there already: an accept that is asked again.
-- Invariant: a job that exists is never changed by being submitted again.
INSERT INTO jobs (id, tenant, queue, kind, target, priority, max_attempts, run_at, start_by, deadline, timeout_ms,
                  accepted_at, unique_key, operation, batch_id, tags, request_id, traceparent, concurrency_key, key_id,
                  max_cost_nanousd, webhook)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22)
ON CONFLICT (id) DO NOTHING;
