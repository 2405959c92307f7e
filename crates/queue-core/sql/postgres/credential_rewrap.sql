-- Purpose:   replaces a wrapped data key by one that another master key opens.
-- Arguments: 1 tenant, 2 provider, 3 version, 4 kek_id before, 5 kek_id after, 6 wrapped_key.
-- Returns:   nothing; 1 row changed, or 0 where that version is not wrapped so any more.
-- Invariant: touches no secret: the ciphertext stays.
WITH mark AS (UPDATE credential_mark SET revision = revision + 1 RETURNING revision)
UPDATE credentials c
SET kek_id = $5, wrapped_key = $6, revision = mark.revision
FROM mark
WHERE c.tenant = $1 AND c.provider = $2 AND c.version = $3 AND c.kek_id = $4
