-- Purpose:   deletes a receiver and its secrets.
-- Arguments: 1 id, 2 owner of the secrets.
-- Returns:   nothing; 1 row changed, or 0 where there is none.
-- Invariant: what is to be delivered to it stays, without a receiver.
WITH gone AS (DELETE FROM signing_secrets WHERE owner = $2)
DELETE FROM webhook_endpoints WHERE id = $1
