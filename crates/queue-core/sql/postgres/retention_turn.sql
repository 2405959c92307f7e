-- Purpose:   who is at retention, and what was ordered.
-- Arguments: none.
-- Returns:   beat, orders, taking, served, began_at, ended_at, due_at.
-- Invariant: writes nothing.
SELECT beat, orders, taking, served, began_at, ended_at, due_at FROM retention_turn
