-- Purpose:   destroys what opens a tenant's provider keys.
-- Arguments: 1 tenant.
-- Returns:   nothing.
-- Invariant: part of the transaction that begins the erasure. Each credential gets a revision of its own, so every reader hears of it.
UPDATE credentials
SET state = 'deleted', reason = NULL, version = version + 1, failures = 0, kek_id = NULL, wrapped_key = NULL,
    ciphertext = NULL, hint = '',
    revision = (SELECT max(revision) FROM credentials)
               + (SELECT count(*) FROM credentials c WHERE c.tenant = ?1 AND c.provider <= credentials.provider)
WHERE tenant = ?1 AND state <> 'deleted';
