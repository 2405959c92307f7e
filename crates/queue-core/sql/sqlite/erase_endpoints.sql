-- Purpose:   forgets a tenant's receivers.
-- Arguments: 1 tenant.
-- Returns:   nothing.
-- Invariant: behind `erase_secrets`.
DELETE FROM webhook_endpoints WHERE tenant = ?1;
