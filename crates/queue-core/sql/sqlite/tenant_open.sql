-- Purpose:   the row of a tenant's live jobs, with the first of them.
-- Arguments: 1 tenant, 2 live.
-- Returns:   nothing.
-- Invariant: follows a `tenant_add` that found no row.
INSERT INTO tenant_totals (tenant, live) VALUES (?1, ?2);
