-- Purpose:   replaces the payload of a job that was edited just now.
-- Arguments: 1 id, 2 body.
-- Returns:   nothing.
-- Invariant: follows `edit` in its transaction, so no claim can load the old row with the new payload.
UPDATE payloads SET body = $2 WHERE id = $1
