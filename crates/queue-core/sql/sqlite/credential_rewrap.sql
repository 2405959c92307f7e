-- Purpose:   replaces a wrapped data key by one that another master key opens.
-- Arguments: 1 tenant, 2 provider, 3 version, 4 kek_id before, 5 kek_id after, 6 wrapped_key.
-- Returns:   nothing; 1 row changed, or 0 where that version is not wrapped so any more.
-- Invariant: touches no secret: the ciphertext stays.
UPDATE credentials
SET kek_id = ?5, wrapped_key = ?6, revision = (SELECT max(revision) + 1 FROM credentials)
WHERE tenant = ?1 AND provider = ?2 AND version = ?3 AND kek_id = ?4;
