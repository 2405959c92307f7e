-- Purpose:   sets a tenant's key, active and without refusals.
-- Arguments: 1 tenant, 2 provider, 3 version, 4 kek_id, 5 wrapped_key, 6 ciphertext, 7 hint, 8 now.
-- Returns:   nothing; 1 row changed, or 0 where another version is there than the one before.
-- Invariant: versions and revisions only grow.
INSERT INTO credentials (tenant, provider, version, revision, state, reason, kek_id, wrapped_key, ciphertext, hint,
                         failures, created_at, rotated_at, used_at)
SELECT ?1, ?2, ?3, (SELECT coalesce(max(revision), 0) + 1 FROM credentials), 'active', NULL, ?4, ?5, ?6, ?7, 0, ?8, ?8, NULL
WHERE ?3 = 1 OR EXISTS (SELECT 1 FROM credentials WHERE tenant = ?1 AND provider = ?2)
ON CONFLICT (tenant, provider) DO UPDATE
SET version = excluded.version, revision = excluded.revision, state = 'active', reason = NULL, kek_id = excluded.kek_id,
    wrapped_key = excluded.wrapped_key, ciphertext = excluded.ciphertext, hint = excluded.hint, failures = 0,
    rotated_at = excluded.rotated_at, used_at = NULL
WHERE credentials.version = excluded.version - 1;
