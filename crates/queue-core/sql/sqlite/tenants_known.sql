-- Purpose:   tenants by name: those for whom something was set, who have or had jobs, or a key.
-- Arguments: 1 the name behind which the page starts, 2 limit.
-- Returns:   name, live jobs.
-- Invariant: each arm walks its table's index from the name on, at most a page of names.
WITH known (name) AS (
    SELECT * FROM (SELECT name FROM tenants WHERE name > ?1 ORDER BY name LIMIT ?2)
    UNION
    SELECT * FROM (SELECT tenant FROM tenant_totals WHERE tenant > ?1 ORDER BY tenant LIMIT ?2)
    UNION
    SELECT * FROM (SELECT tenant FROM api_keys WHERE tenant > ?1 GROUP BY tenant ORDER BY tenant LIMIT ?2)
)
SELECT name, (SELECT coalesce(sum(live), 0) FROM tenant_totals WHERE tenant = known.name)
FROM known
ORDER BY name
LIMIT ?2;
