-- Purpose:   how many API keys of one role can be used.
-- Arguments: 1 the role's word, 2 now.
-- Returns:   the number.
-- Invariant: writes nothing.
SELECT count(*) FROM api_keys WHERE role = $1 AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > $2)
