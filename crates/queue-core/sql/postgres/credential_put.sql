-- Purpose:   sets a tenant's key, active and without refusals.
-- Arguments: 1 tenant, 2 provider, 3 version, 4 kek_id, 5 wrapped_key, 6 ciphertext, 7 hint, 8 now.
-- Returns:   nothing; 1 row changed, or 0 where another version is there than the one before.
-- Invariant: versions and revisions only grow.
WITH mark AS (UPDATE credential_mark SET revision = revision + 1 RETURNING revision)
INSERT INTO credentials AS c (tenant, provider, version, revision, state, reason, kek_id, wrapped_key, ciphertext, hint,
                              failures, created_at, rotated_at, used_at)
SELECT $1::text, $2::text, $3::bigint, mark.revision, 'active', NULL, $4::text, $5::bytea, $6::bytea, $7::text, 0,
       $8::bigint, $8::bigint, NULL
FROM mark
WHERE $3::bigint = 1 OR EXISTS (SELECT 1 FROM credentials WHERE tenant = $1::text AND provider = $2::text)
ON CONFLICT (tenant, provider) DO UPDATE
SET version = excluded.version, revision = excluded.revision, state = 'active', reason = NULL, kek_id = excluded.kek_id,
    wrapped_key = excluded.wrapped_key, ciphertext = excluded.ciphertext, hint = excluded.hint, failures = 0,
    rotated_at = excluded.rotated_at, used_at = NULL
WHERE c.version = excluded.version - 1
