-- Purpose:   tenants by name: those for whom something was set, who have or had jobs, or a key.
-- Arguments: 1 the name behind which the page starts, 2 limit.
-- Returns:   name, live jobs.
-- Invariant: each arm walks its table's index from the name on, at most a page of names.
WITH known AS (
    (SELECT name FROM tenants WHERE name > $1 ORDER BY name LIMIT $2)
    UNION
    (SELECT tenant FROM tenant_totals WHERE tenant > $1 GROUP BY tenant ORDER BY tenant LIMIT $2)
    UNION
    (SELECT tenant FROM api_keys WHERE tenant > $1 GROUP BY tenant ORDER BY tenant LIMIT $2)
), page AS (
    SELECT name FROM known ORDER BY name LIMIT $2
)
SELECT p.name, (SELECT coalesce(sum(t.live), 0)::bigint FROM tenant_totals t WHERE t.tenant = p.name)
FROM page p
ORDER BY p.name
