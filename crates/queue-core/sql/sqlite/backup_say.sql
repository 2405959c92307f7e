-- Purpose:   says why a restored journal is paused.
-- Arguments: 1 the reason.
-- Returns:   nothing.
-- Invariant: one that was confirmed meanwhile stays so.
UPDATE meta SET maintenance_reason = ?1 WHERE maintenance_since IS NOT NULL
