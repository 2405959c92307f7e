-- Purpose:   another secret for an API key; the present one opens beside it until a moment, if that is to come.
-- Arguments: 1 id, 2 the new secret_hash, 3 that moment, 4 now.
-- Returns:   the columns of the key, as `identity.rs` reads them; no row for one that cannot be used now.
-- Invariant: asking again with the same secret changes nothing.
UPDATE api_keys
SET previous_hash = CASE WHEN secret_hash = $2 THEN previous_hash WHEN $3::bigint > $4::bigint THEN secret_hash END,
    previous_until = CASE WHEN secret_hash = $2 THEN previous_until WHEN $3::bigint > $4::bigint THEN $3::bigint END,
    rotated_at = CASE WHEN secret_hash = $2 THEN rotated_at ELSE $4::bigint END,
    secret_hash = $2
WHERE id = $1 AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > $4)
RETURNING id, secret_hash, previous_hash, previous_until, tenant, role, grants, name, created_at, expires_at, rotated_at, revoked_at,
       last_used_at, requests_per_minute, llm_submits_per_minute
