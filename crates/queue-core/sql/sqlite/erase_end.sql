-- Purpose:   ends a walk.
-- Arguments: none.
-- Returns:   nothing.
-- Invariant: the next step begins another one.
UPDATE erasure_walk SET began_at = NULL, passed = 0, upto = 0;
