-- Purpose:   how far the dispatcher's life is filled.
-- Arguments: none.
-- Returns:   generation, began_at, fill_beat, filled, filled_run_at, filled_id.
-- Invariant: one row.
SELECT generation, began_at, fill_beat, filled, filled_run_at, filled_id FROM meta
