-- Purpose:   limits the secret before another one.
-- Arguments: 1 owner, 2 its version, 3 until when it signs.
-- Returns:   nothing.
-- Invariant: at most two secrets of an owner sign.
UPDATE signing_secrets SET valid_until = ?3 WHERE owner = ?1 AND version = ?2;
