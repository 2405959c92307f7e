-- Purpose:   the end of a walk: for whom it has found nothing, and who is looked at again when.
-- Arguments: 1 now, 2 to 5 waits until the next look, after the first walk that finds nothing and each further one.
-- Returns:   nothing.
-- Invariant: before `erase_end`.
UPDATE erasures
SET finished_at = CASE WHEN found = 0 THEN coalesce(finished_at, ?1) END,
    checked_at = CASE WHEN found = 0 THEN ?1 ELSE checked_at END,
    looks = CASE WHEN found = 0 THEN looks + 1 ELSE 0 END,
    due_at = CASE WHEN found > 0 THEN ?1 ELSE ?1 + CASE looks WHEN 0 THEN ?2 WHEN 1 THEN ?3 WHEN 2 THEN ?4 WHEN 3 THEN ?5 END END
WHERE found > 0 OR due_at <= (SELECT began_at FROM erasure_walk);
