-- Purpose:   the journal's life.
-- Arguments: none.
-- Returns:   its number.
-- Invariant: only a restore changes it.
SELECT incarnation FROM meta
