-- Purpose:   deletes a receiver.
-- Arguments: 1 id.
-- Returns:   nothing; 1 row changed, or 0 where there is none.
-- Invariant: what is to be delivered to it stays, without a receiver. Its secrets go in the same transaction.
DELETE FROM webhook_endpoints WHERE id = ?1;
