-- Purpose:   a new API key.
-- Arguments: 1 id, 2 secret_hash, 3 tenant, 4 role, 5 name, 6 created_at, 7 grants as JSON or NULL, 8 expires_at or NULL,
--            9 requests_per_minute, 10 llm_submits_per_minute.
-- Returns:   nothing.
-- Invariant: a key that is there stays as it is.
INSERT INTO api_keys (id, secret_hash, tenant, role, name, created_at, grants, expires_at, requests_per_minute,
                      llm_submits_per_minute)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)
ON CONFLICT (id) DO NOTHING;
