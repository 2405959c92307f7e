-- Purpose:   makes a receiver with its secret.
-- Arguments: 1 id, 2 tenant ('' for everybody's events), 3 url, 4 events, 5 description, 6 created_at, 7 receivers at most,
--            8 owner of the secret, 9 kek_id, 10 wrapped_key, 11 ciphertext.
-- Returns:   nothing; 1 row changed, or 0 where there are too many.
-- Invariant: no receiver is without a secret.
WITH made AS (
    INSERT INTO webhook_endpoints (id, tenant, url, events, enabled, description, version, created_at)
    SELECT $1::uuid, $2::text, $3::text, $4::bigint, TRUE, $5::text, 1, $6::bigint
    WHERE (SELECT count(*) FROM webhook_endpoints) < $7::bigint
    RETURNING created_at
)
INSERT INTO signing_secrets (owner, version, kek_id, wrapped_key, ciphertext, created_at)
SELECT $8::text, 1, $9::text, $10::bytea, $11::bytea, created_at FROM made
