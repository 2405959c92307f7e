-- Purpose:   every target for which something was set.
-- Arguments: none.
-- Returns:   name, version, paused, paused_until, reason, breaker.
-- Invariant: cost depends on the number of such targets.
SELECT name, version, paused, paused_until, reason, breaker FROM targets ORDER BY name;
