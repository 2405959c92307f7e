-- Purpose:   the secrets of an owner that sign now.
-- Arguments: 1 owner, 2 now.
-- Returns:   version, kek_id, wrapped_key, ciphertext, valid_until; newest first, two at most.
-- Invariant: writes nothing.
SELECT version, kek_id, wrapped_key, ciphertext, valid_until
FROM signing_secrets
WHERE owner = $1 AND (valid_until IS NULL OR valid_until > $2)
ORDER BY version DESC
LIMIT 2
