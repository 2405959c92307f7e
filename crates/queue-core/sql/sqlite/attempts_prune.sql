-- Purpose:   deletes the attempts of a delivery.
-- Arguments: 1 seq.
-- Returns:   nothing.
-- Invariant: follows `deliveries_prune` in its transaction.
DELETE FROM webhook_attempts WHERE delivery = ?1;
