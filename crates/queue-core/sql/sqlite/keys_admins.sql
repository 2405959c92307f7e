-- Purpose:   the admin keys that can be used.
-- Arguments: 1 now.
-- Returns:   id, tenant, grants, expires_at.
-- Invariant: writes nothing; there is one writer.
SELECT id, tenant, grants, expires_at FROM api_keys
WHERE role = 'admin' AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > ?1)
ORDER BY id;
