-- Purpose:   where the walk is that takes rows of erased tenants away.
-- Arguments: none.
-- Returns:   beat, began_at (NULL: nobody walks).
-- Invariant: writes nothing.
SELECT beat, began_at FROM erasure_walk
