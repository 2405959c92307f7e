-- Purpose:   the erase log, for a backup of it.
-- Arguments: none.
-- Returns:   tenant, pseudonym, accepted_at.
-- Invariant: writes nothing.
SELECT tenant, pseudonym, accepted_at FROM erasures ORDER BY tenant
