-- Purpose:   every receiver that operators have set.
-- Arguments: none.
-- Returns:   id, tenant ('' for everybody's events), url, events, enabled, reason, description, version, created_at.
-- Invariant: writes nothing.
SELECT id, tenant, url, events, enabled, reason, description, version, created_at
FROM webhook_endpoints
ORDER BY created_at, id;
