-- Purpose:   notes how far a schedule is.
-- Arguments: 1 id, 2 the beat that was seen, 3 progress, 4 due_at or NULL.
-- Returns:   nothing; 1 row changed, or 0 where it is at another beat or gone.
-- Invariant: of several who saw one beat, one advances it.
UPDATE schedules SET progress = ?3, due_at = ?4, beat = beat + 1 WHERE id = ?1 AND beat = ?2;
