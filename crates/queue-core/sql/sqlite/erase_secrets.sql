-- Purpose:   forgets what messages to a tenant's receivers are signed with.
-- Arguments: 1 tenant.
-- Returns:   nothing.
-- Invariant: before `erase_endpoints`, which says which receivers those are.
DELETE FROM signing_secrets
WHERE owner = 'tenant:' || ?1
      OR owner IN (SELECT 'endpoint:' || lower(printf('%s-%s-%s-%s-%s', substr(hex(id), 1, 8), substr(hex(id), 9, 4),
                                                      substr(hex(id), 13, 4), substr(hex(id), 17, 4), substr(hex(id), 21)))
                   FROM webhook_endpoints WHERE tenant = ?1);
