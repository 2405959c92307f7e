-- Purpose:   a page of API keys.
-- Arguments: 1 tenant or NULL, 2 the id behind which it starts, 3 whether revoked keys are among them, 4 limit.
-- Returns:   the columns of a key, as `identity.rs` reads them, by id.
-- Invariant: writes nothing.
SELECT id, secret_hash, previous_hash, previous_until, tenant, role, grants, name, created_at, expires_at, rotated_at, revoked_at,
       last_used_at, requests_per_minute, llm_submits_per_minute
FROM api_keys
WHERE (?1 IS NULL OR tenant = ?1) AND id > ?2 AND (?3 OR revoked_at IS NULL)
ORDER BY id
LIMIT ?4;
