-- Purpose:   how often an API key may ask in a minute.
-- Arguments: 1 id, 2 requests_per_minute or NULL, 3 llm_submits_per_minute or NULL.
-- Returns:   the columns of the key, as `identity.rs` reads them; no row for one that there is not.
-- Invariant: asking again changes nothing.
UPDATE api_keys SET requests_per_minute = ?2, llm_submits_per_minute = ?3
WHERE id = ?1
RETURNING id, secret_hash, previous_hash, previous_until, tenant, role, grants, name, created_at, expires_at, rotated_at, revoked_at,
       last_used_at, requests_per_minute, llm_submits_per_minute;
