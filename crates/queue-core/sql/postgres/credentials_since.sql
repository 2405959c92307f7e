-- Purpose:   credentials that changed after a revision, oldest change first.
-- Arguments: 1 revision, 2 rows at most.
-- Returns:   tenant, provider, version, revision, state, reason, kek_id, wrapped_key, ciphertext, hint, failures, created_at,
--            rotated_at, used_at.
-- Invariant: writes nothing.
SELECT tenant, provider, version, revision, state, reason, kek_id, wrapped_key, ciphertext, hint, failures, created_at,
       rotated_at, used_at
FROM credentials
WHERE revision > $1
ORDER BY revision
LIMIT $2
