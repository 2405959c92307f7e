-- Purpose:   settled jobs in the order of their ids, for retention.
-- Arguments: 1 the id behind which the page begins, 2 the id below which it ends, 3 rows at most.
-- Returns:   id, epoch, queue, finished_at.
-- Invariant: writes nothing.
SELECT id, epoch, queue, finished_at FROM settled_jobs WHERE id > $1 AND id < $2 ORDER BY id LIMIT $3
