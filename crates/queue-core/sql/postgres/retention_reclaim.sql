-- Purpose:   drops the table of a day that was taken out.
-- Arguments: none.
-- Returns:   whether there was one.
-- Invariant: see the function of this name.
SELECT retention_reclaim()
