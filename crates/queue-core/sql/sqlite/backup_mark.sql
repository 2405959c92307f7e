-- Purpose:   marks a journal as restored: other lives of journal and dispatcher, and nothing begins before somebody confirms.
-- Arguments: 1 now, in milliseconds, 2 why it is paused.
-- Returns:   nothing.
-- Invariant: in the transaction that loads it, or before the file is in its place. Both lives are of this restore alone: a second one of the same backup has others.
UPDATE meta
SET incarnation = max(incarnation + 1, ?1), generation = max(generation + 1, ?1), began_at = ?1, fill_beat = 0, filled = FALSE,
    filled_run_at = NULL, filled_id = NULL, maintenance_since = ?1, maintenance_reason = ?2
