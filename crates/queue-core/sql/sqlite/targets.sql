-- Purpose:   every target for which something was set.
-- Arguments: none.
-- Returns:   name, version, paused, paused_until, reason, breaker, requests_per_minute, tokens_per_minute, tokens_charged,
--            concurrency.
-- Invariant: cost depends on the number of such targets.
SELECT name, version, paused, paused_until, reason, breaker, requests_per_minute, tokens_per_minute, tokens_charged,
       concurrency
FROM targets ORDER BY name;
