-- Purpose:   every tenant for whom something was set.
-- Arguments: none.
-- Returns:   name, version, backlog_max, weight, paused, paused_until, reason, rules, credential_policy,
--            requests_per_minute, llm_submits_per_minute.
-- Invariant: cost depends on the number of such tenants.
SELECT name, version, backlog_max, weight, paused, paused_until, reason, rules, credential_policy, requests_per_minute,
       llm_submits_per_minute
FROM tenants
ORDER BY name;
