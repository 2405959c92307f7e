-- Purpose:   which schedule of a tenant has a name.
-- Arguments: 1 tenant, 2 name.
-- Returns:   id.
-- Invariant: writes nothing.
SELECT id FROM schedules WHERE tenant = ?1 AND name = ?2;
