-- Purpose:   the tenants that were erased, or are being.
-- Arguments: none.
-- Returns:   tenant, pseudonym, accepted_at, erased, finished_at, checked_at, due_at; by tenant.
-- Invariant: as many as there may be (`ERASURES_MAX`), and no more.
SELECT tenant, pseudonym, accepted_at, erased, finished_at, checked_at, due_at FROM erasures ORDER BY tenant;
