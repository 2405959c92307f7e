-- Purpose:   marks a journal as restored: other lives of journal and dispatcher, and nothing begins before somebody confirms.
-- Arguments: 1 now, 2 why it is paused, 3 by how much the dispatcher's life is raised.
-- Returns:   nothing.
-- Invariant: in the transaction that loads it, or before the file is in its place.
UPDATE meta
SET incarnation = incarnation + 1, generation = generation + ?3, began_at = ?1, fill_beat = 0, filled = FALSE,
    filled_run_at = NULL, filled_id = NULL, maintenance_since = ?1, maintenance_reason = ?2
