-- Purpose:   forgets revoked tokens that nobody would believe any more.
-- Arguments: 1 now.
-- Returns:   nothing.
-- Invariant: walks along the index of their ends.
DELETE FROM revoked_tokens WHERE expires_at < ?1;
