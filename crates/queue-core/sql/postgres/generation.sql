-- Purpose:   begins a new life of the dispatcher.
-- Arguments: 1 now.
-- Returns:   its number.
-- Invariant: grows by one; a new life is empty.
UPDATE meta
SET generation = generation + 1, began_at = $1, fill_beat = 0, filled = FALSE, filled_run_at = NULL,
    filled_id = NULL
RETURNING generation
