-- Purpose:   adds what a transaction did to the numbers of its queues.
-- Arguments: 1 queues, in order, 2 accepted, 3 succeeded, 4 cancelled, 5 dead, 6 live; arrays of one length.
-- Returns:   nothing.
-- Invariant: once a transaction, as its last statement: the slot is held until the commit. Other connections have
--            other slots, 64 of them.
INSERT INTO queue_totals AS t (queue, slot, accepted, succeeded, cancelled, dead, live)
SELECT queue, pg_backend_pid() % 64, accepted, succeeded, cancelled, dead, live
FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[])
     AS moved (queue, accepted, succeeded, cancelled, dead, live)
ON CONFLICT (queue, slot) DO UPDATE
SET accepted = t.accepted + excluded.accepted, succeeded = t.succeeded + excluded.succeeded,
    cancelled = t.cancelled + excluded.cancelled, dead = t.dead + excluded.dead, live = t.live + excluded.live
