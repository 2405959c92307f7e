-- Purpose:   how many live jobs a tenant has and may have.
-- Arguments: 1 tenant.
-- Returns:   backlog_max, live.
-- Invariant: one row. Cost does not depend on the number of jobs.
SELECT (SELECT backlog_max FROM tenants WHERE name = ?1),
       (SELECT coalesce(sum(live), 0) FROM tenant_totals WHERE tenant = ?1);
