-- Purpose:   the API key with an id.
-- Arguments: 1 id.
-- Returns:   id, secret_hash, tenant, role, name, created_at.
-- Invariant: writes nothing.
SELECT id, secret_hash, tenant, role, name, created_at FROM api_keys WHERE id = $1
