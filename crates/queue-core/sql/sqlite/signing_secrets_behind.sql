-- Purpose:   the secrets that another master key than this one wraps.
-- Arguments: 1 kek_id, 2 rows at most.
-- Returns:   owner, version, kek_id, wrapped_key, ciphertext, valid_until.
-- Invariant: writes nothing.
SELECT owner, version, kek_id, wrapped_key, ciphertext, valid_until
FROM signing_secrets
WHERE kek_id <> ?1
ORDER BY owner, version
LIMIT ?2;
