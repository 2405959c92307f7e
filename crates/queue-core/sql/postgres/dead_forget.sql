-- Purpose:   forgets causes that have no letters any more.
-- Arguments: none.
-- Returns:   nothing.
-- Invariant: sums add up whether or not the row is there: lines that come later begin it anew.
DELETE FROM dead_causes WHERE letters = 0 AND cost_nanousd = 0
