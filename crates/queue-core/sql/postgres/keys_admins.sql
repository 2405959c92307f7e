-- Purpose:   the admin keys that can be used, and nobody takes one of them back meanwhile.
-- Arguments: 1 now.
-- Returns:   id, tenant, grants, expires_at.
-- Invariant: locks them in the order of their ids, so that of two who ask at once the second sees what the first has done.
SELECT id, tenant, grants, expires_at FROM api_keys
WHERE role = 'admin' AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > $1)
ORDER BY id
FOR UPDATE
