-- Purpose:   destroys what opens a tenant's secrets, and takes its keys back.
-- Arguments: 1 tenant, 2 now.
-- Returns:   nothing.
-- Invariant: part of the transaction that begins the erasure. Each credential gets a revision of its own, so every process hears of
--            it; the rows themselves go with the walk, when all have heard.
WITH mark AS (
    UPDATE credential_mark
    SET revision = revision + (SELECT count(*) FROM credentials WHERE tenant = $1::text AND state <> 'deleted')
    RETURNING revision
), shredded AS (
    UPDATE credentials c
    SET state = 'deleted', reason = NULL, version = c.version + 1, failures = 0, kek_id = NULL, wrapped_key = NULL,
        ciphertext = NULL, hint = '',
        revision = (SELECT revision FROM mark) - (
            SELECT count(*) FROM credentials later
            WHERE later.tenant = $1::text AND later.state <> 'deleted' AND later.provider > c.provider)
    WHERE c.tenant = $1::text AND c.state <> 'deleted'
), secrets AS (
    DELETE FROM signing_secrets
    WHERE owner = 'tenant:' || $1::text
          OR owner IN (SELECT 'endpoint:' || id FROM webhook_endpoints WHERE tenant = $1::text)
), endpoints AS (
    DELETE FROM webhook_endpoints WHERE tenant = $1::text
)
UPDATE api_keys SET revoked_at = $2 WHERE tenant = $1::text AND revoked_at IS NULL
