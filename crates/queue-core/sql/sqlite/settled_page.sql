-- Purpose:   jobs in the order of their ids, for retention.
-- Arguments: 1 the id behind which the page begins, 2 the id below which it ends, 3 rows at most.
-- Returns:   id, epoch, queue, finished_at (NULL: it lives, or is a dead letter).
-- Invariant: writes nothing.
SELECT id, epoch, queue, CASE WHEN standing IN (1, 3) THEN finished_at END FROM jobs WHERE id > ?1 AND id < ?2 ORDER BY id LIMIT ?3;
