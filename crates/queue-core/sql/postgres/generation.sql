-- Purpose:   begins a new life of the dispatcher.
-- Arguments: none.
-- Returns:   its number.
-- Invariant: grows by one.
UPDATE meta SET generation = generation + 1 RETURNING generation
