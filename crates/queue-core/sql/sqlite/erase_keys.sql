-- Purpose:   takes a tenant's keys back.
-- Arguments: 1 tenant, 2 now.
-- Returns:   nothing.
-- Invariant: those that were taken back before keep their moment.
UPDATE api_keys SET revoked_at = ?2 WHERE tenant = ?1 AND revoked_at IS NULL;
