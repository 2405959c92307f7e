-- Purpose:   adds a secret, limits the one before it, and forgets those before that.
-- Arguments: 1 owner, 2 version, 3 kek_id, 4 wrapped_key, 5 ciphertext, 6 now, 7 until when the one before it signs.
-- Returns:   nothing; 1 row changed, or 0 where the version is there already.
-- Invariant: at most two secrets of an owner sign.
WITH added AS (
    INSERT INTO signing_secrets (owner, version, kek_id, wrapped_key, ciphertext, created_at)
    VALUES ($1, $2, $3, $4, $5, $6)
    ON CONFLICT (owner, version) DO NOTHING
    RETURNING owner, version
), gone AS (
    DELETE FROM signing_secrets s USING added a WHERE s.owner = a.owner AND s.version < a.version - 1
), limited AS (
    UPDATE signing_secrets s SET valid_until = $7 FROM added a WHERE s.owner = a.owner AND s.version = a.version - 1
)
SELECT count(*) FROM added
