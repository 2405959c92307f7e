-- Purpose:   the API key with an id.
-- Arguments: 1 id.
-- Returns:   the columns of a key, as `identity.rs` reads them.
-- Invariant: writes nothing.
SELECT id, secret_hash, previous_hash, previous_until, tenant, role, grants, name, created_at, expires_at, rotated_at, revoked_at,
       last_used_at, requests_per_minute, llm_submits_per_minute
FROM api_keys WHERE id = ?1;
