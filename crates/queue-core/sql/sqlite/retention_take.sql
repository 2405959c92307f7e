-- Purpose:   takes the turn.
-- Arguments: 1 the beat that was seen, 2 now, 3 until when others take it for taken.
-- Returns:   beat, orders, taking, served, began_at, ended_at, due_at; no row where somebody else came first.
-- Invariant: serves the orders that were given before.
UPDATE retention_turn SET beat = beat + 1, taking = orders, began_at = ?2, due_at = ?3 WHERE beat = ?1
RETURNING beat, orders, taking, served, began_at, ended_at, due_at;
