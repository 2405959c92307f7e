-- Purpose:   changes a receiver.
-- Arguments: 1 id, 2 its version after it, 3 url, 4 events, 5 enabled, 6 reason, 7 description.
-- Returns:   nothing; 1 row changed, or 0 where it is not at the version before.
-- Invariant: whose events it is told never changes.
UPDATE webhook_endpoints
SET version = $2, url = $3, events = $4, enabled = $5, reason = $6, description = $7
WHERE id = $1 AND version = $2 - 1
