-- Purpose:   forgets operations that ended long ago.
-- Arguments: 1 the moment before which they must have ended.
-- Returns:   nothing.
-- Invariant: never one that runs.
DELETE FROM operations WHERE finished_at < $1
