-- Purpose:   switches a receiver off that wants no more.
-- Arguments: 1 id, 2 why.
-- Returns:   nothing.
-- Invariant: follows `delivery_note` in its transaction.
UPDATE webhook_endpoints SET enabled = 0, reason = ?2, version = version + 1 WHERE id = ?1 AND enabled;
