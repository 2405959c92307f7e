-- Purpose:   takes a token back.
-- Arguments: 1 issuer, 2 jti, 3 when nobody would believe it any more.
-- Returns:   nothing.
-- Invariant: twice is once; the later end stays.
INSERT INTO revoked_tokens (issuer, jti, expires_at) VALUES (?1, ?2, ?3)
ON CONFLICT (issuer, jti) DO UPDATE SET expires_at = excluded.expires_at
WHERE revoked_tokens.expires_at < excluded.expires_at;
