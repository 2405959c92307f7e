-- Purpose:   every tenant for whom something was set.
-- Arguments: none.
-- Returns:   name, version, backlog_max, weight, paused, paused_until, reason, rules, credential_policy.
-- Invariant: cost depends on the number of such tenants.
SELECT name, version, backlog_max, weight, paused, paused_until, reason, rules, credential_policy
FROM tenants
ORDER BY name
