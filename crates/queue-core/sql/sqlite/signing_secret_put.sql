-- Purpose:   adds a secret.
-- Arguments: 1 owner, 2 version, 3 kek_id, 4 wrapped_key, 5 ciphertext, 6 now.
-- Returns:   nothing; 1 row changed, or 0 where the version is there already.
-- Invariant: `signing_secrets_limit` and `signing_secrets_drop` follow in its transaction.
INSERT INTO signing_secrets (owner, version, kek_id, wrapped_key, ciphertext, created_at)
VALUES (?1, ?2, ?3, ?4, ?5, ?6)
ON CONFLICT (owner, version) DO NOTHING;
