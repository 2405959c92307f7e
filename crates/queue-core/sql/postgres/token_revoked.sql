-- Purpose:   whether a token was taken back.
-- Arguments: 1 issuer, 2 jti.
-- Returns:   one row if it was.
-- Invariant: writes nothing.
SELECT 1 FROM revoked_tokens WHERE issuer = $1 AND jti = $2
