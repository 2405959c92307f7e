-- Purpose:   adds what a transaction did to a tenant's live jobs.
-- Arguments: 1 tenant, 2 live.
-- Returns:   nothing; no row is changed for a tenant that had no job.
-- Invariant: once for each tenant of a transaction; the number never becomes negative (CHECK).
UPDATE tenant_totals SET live = live + ?2 WHERE tenant = ?1;
