-- Purpose:   deletes the oldest delivery that has ended and happened long ago.
-- Arguments: 1 moment before which it happened.
-- Returns:   seq; no row where there is none.
-- Invariant: what is still to be delivered stays; `attempts_prune` follows in its transaction.
DELETE FROM webhook_deliveries
WHERE seq = (SELECT seq FROM webhook_deliveries WHERE state > 0 AND at < ?1 ORDER BY at LIMIT 1)
RETURNING seq;
