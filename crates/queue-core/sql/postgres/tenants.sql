-- Purpose:   every tenant for whom something was set.
-- Arguments: none.
-- Returns:   name, version, backlog_max, weight, paused, paused_until, reason, rules.
-- Invariant: cost depends on the number of such tenants.
SELECT name, version, backlog_max, weight, paused, paused_until, reason, rules FROM tenants ORDER BY name
