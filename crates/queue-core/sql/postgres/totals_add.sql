-- Purpose:   adds what a transaction did to the numbers of its queues and tenants.
-- Arguments: 1 queues, in order, 2 accepted, 3 succeeded, 4 cancelled, 5 dead, 6 live, 7 died; arrays of one
--            length; 8 tenants, in order, 9 live; arrays of one length.
-- Returns:   nothing.
-- Invariant: once a transaction, as its last statement: the slot is held until the commit. Other connections have
--            other slots, 64 of them.
WITH backlogs AS (
    INSERT INTO tenant_totals AS b (tenant, slot, live)
    SELECT tenant, pg_backend_pid() % 64, live FROM unnest($8::text[], $9::bigint[]) AS moved (tenant, live)
    ON CONFLICT (tenant, slot) DO UPDATE SET live = b.live + excluded.live
)
INSERT INTO queue_totals AS t (queue, slot, accepted, succeeded, cancelled, dead, live, died)
SELECT queue, pg_backend_pid() % 64, accepted, succeeded, cancelled, dead, live, died
FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[])
     AS moved (queue, accepted, succeeded, cancelled, dead, live, died)
ON CONFLICT (queue, slot) DO UPDATE
SET accepted = t.accepted + excluded.accepted, succeeded = t.succeeded + excluded.succeeded,
    cancelled = t.cancelled + excluded.cancelled, dead = t.dead + excluded.dead, live = t.live + excluded.live,
    died = t.died + excluded.died
