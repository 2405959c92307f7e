-- Purpose:   notes when an API key was used.
-- Arguments: 1 id, 2 the moment.
-- Returns:   nothing.
-- Invariant: a later moment stays.
UPDATE api_keys SET last_used_at = ?2 WHERE id = ?1 AND coalesce(last_used_at, 0) < ?2;
