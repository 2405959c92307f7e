-- Purpose:   the newest jobs of a batch, newest first.
-- Arguments: 1 batch, 2 how many.
-- Returns:   id, standing, accepted_at, finished_at, tags, cost_nanousd, cost_unknown.
-- Invariant: walks the end of the batch in the index of batches, however many jobs it has.
SELECT id, standing, accepted_at, finished_at, tags, cost_nanousd, cost_unknown
FROM jobs
WHERE batch_id = ?1
ORDER BY id DESC
LIMIT ?2;
