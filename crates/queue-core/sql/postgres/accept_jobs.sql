-- Purpose:   new jobs, live at epoch 0.
-- Arguments: 1 ids, 2 tenants, 3 queues, 4 kinds, 5 targets, 6 priorities, 7 max_attempts, 8 run_at, 9 start_by,
--            10 deadlines, 11 timeout_ms, 12 accepted_at, 13 unique_keys, 14 operations, 15 batch_ids, 16 tags,
--            17 request_ids, 18 traceparents, 19 concurrency_keys, 20 key_ids, 21 max_cost_nanousd, 22 webhooks; arrays of one
--            length.
-- Returns:   nothing.
-- Invariant: follows `accept_payloads`, which found that the ids are new.
INSERT INTO jobs (id, tenant, queue, kind, target, priority, max_attempts, run_at, start_by, deadline, timeout_ms,
                  accepted_at, unique_key, operation, batch_id, tags, request_id, traceparent, concurrency_key, key_id,
                  max_cost_nanousd, webhook)
SELECT * FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::smallint[], $7::integer[],
                     $8::bigint[], $9::bigint[], $10::bigint[], $11::bigint[], $12::bigint[], $13::text[], $14::text[],
                     $15::text[], $16::text[], $17::text[], $18::text[], $19::text[], $20::text[],
                     $21::bigint[], $22::text[])
