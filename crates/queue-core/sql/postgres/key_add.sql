-- Purpose:   a new API key.
-- Arguments: 1 id, 2 secret_hash, 3 tenant, 4 role, 5 name, 6 created_at.
-- Returns:   nothing.
-- Invariant: a key that is there stays as it is.
INSERT INTO api_keys (id, secret_hash, tenant, role, name, created_at) VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (id) DO NOTHING
