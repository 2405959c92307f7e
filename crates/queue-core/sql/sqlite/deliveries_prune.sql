-- Purpose:   deletes the oldest delivery that ended long ago.
-- Arguments: 1 moment before which it ended.
-- Returns:   seq; no row where there is none.
-- Invariant: `due_at` of what has ended is when it did. What is still to be delivered stays; `attempts_prune` follows in its transaction.
DELETE FROM webhook_deliveries
WHERE seq = (SELECT seq FROM webhook_deliveries WHERE state > 0 AND due_at < ?1 ORDER BY due_at LIMIT 1)
RETURNING seq;
