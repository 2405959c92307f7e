-- Purpose:   replaces a wrapped data key by one that another master key opens.
-- Arguments: 1 owner, 2 version, 3 kek_id before, 4 kek_id after, 5 wrapped_key.
-- Returns:   nothing; 1 row changed, or 0 where that version is not wrapped so any more.
-- Invariant: touches no secret: the ciphertext stays.
UPDATE signing_secrets
SET kek_id = $4, wrapped_key = $5
WHERE owner = $1 AND version = $2 AND kek_id = $3
