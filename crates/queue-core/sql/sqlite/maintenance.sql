-- Purpose:   the maintenance that is on.
-- Arguments: none.
-- Returns:   since (NULL: none is on), reason.
-- Invariant: one row.
SELECT maintenance_since, maintenance_reason FROM meta
