-- Purpose:   gives the turn back.
-- Arguments: 1 the beat at which it was taken, 2 now, 3 when the next run is due.
-- Returns:   nothing.
-- Invariant: nothing is changed where somebody else has taken it since.
UPDATE retention_turn SET served = greatest(served, taking), ended_at = $2, due_at = $3 WHERE beat = $1
