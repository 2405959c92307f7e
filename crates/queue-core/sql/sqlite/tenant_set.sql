-- Purpose:   replaces a tenant's settings.
-- Arguments: 1 name, 2 backlog_max, 3 weight, 4 paused, 5 paused_until, 6 reason, 7 rules, 8 credential_policy,
--            9 requests_per_minute, 10 llm_submits_per_minute.
-- Returns:   the new version.
-- Invariant: versions grow by one with every change.
INSERT INTO tenants (name, version, backlog_max, weight, paused, paused_until, reason, rules,
                     credential_policy, requests_per_minute, llm_submits_per_minute)
VALUES (?1, 1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)
ON CONFLICT (name) DO UPDATE
SET version = version + 1, backlog_max = excluded.backlog_max, weight = excluded.weight,
    paused = excluded.paused, paused_until = excluded.paused_until, reason = excluded.reason,
    rules = excluded.rules, credential_policy = excluded.credential_policy,
    requests_per_minute = excluded.requests_per_minute, llm_submits_per_minute = excluded.llm_submits_per_minute
RETURNING version;
