-- Purpose:   every tenant for whom something was set.
-- Arguments: none.
-- Returns:   name, version, backlog_max, weight.
-- Invariant: cost depends on the number of such tenants.
SELECT name, version, backlog_max, weight FROM tenants ORDER BY name;
