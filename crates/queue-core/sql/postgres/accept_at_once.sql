-- Purpose:   new jobs without keys, with their payloads and all that is counted of them, in one statement.
-- Arguments: 1 payloads, in the order of the ids; 2 queues, in order, 3 how many each was given; 4 tenants, in order,
--            5 how many each has; 6 fallback chains as JSON, in the order of the ids; 7 and
--            following as `accept_jobs`, in the order of the ids.
-- Returns:   nothing.
-- Invariant: an id that is there already refuses all of it: whether it was accepted before is then found out by
--            `accept_payloads`.
WITH carried AS (
    INSERT INTO payloads (id, tenant, body, fallback)
    SELECT * FROM unnest($7::uuid[], $8::text[], $1::bytea[], $6::text[])
), made AS (
    INSERT INTO jobs (id, tenant, queue, kind, target, priority, max_attempts, run_at, start_by, deadline, timeout_ms,
                      accepted_at, unique_key, operation, batch_id, tags, request_id, traceparent, concurrency_key,
                      key_id, max_cost_nanousd, webhook)
    SELECT * FROM unnest($7::uuid[], $8::text[], $9::text[], $10::text[], $11::text[], $12::smallint[], $13::integer[],
                         $14::bigint[], $15::bigint[], $16::bigint[], $17::bigint[], $18::bigint[], $19::text[],
                         $20::text[], $21::text[], $22::text[], $23::text[], $24::text[], $25::text[],
                         $26::text[], $27::bigint[], $28::text[])
), opened AS (
    INSERT INTO queues (name) SELECT * FROM unnest($2::text[]) ON CONFLICT (name) DO NOTHING
), backlogs AS (
    INSERT INTO tenant_totals AS b (tenant, slot, live)
    SELECT tenant, pg_backend_pid() % 64, live FROM unnest($4::text[], $5::bigint[]) AS moved (tenant, live)
    ON CONFLICT (tenant, slot) DO UPDATE SET live = b.live + excluded.live
)
INSERT INTO queue_totals AS t (queue, slot, accepted, live)
SELECT queue, pg_backend_pid() % 64, accepted, accepted
FROM unnest($2::text[], $3::bigint[]) AS moved (queue, accepted)
ON CONFLICT (queue, slot) DO UPDATE SET accepted = t.accepted + excluded.accepted, live = t.live + excluded.live
