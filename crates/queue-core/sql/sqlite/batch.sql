-- Purpose:   jobs of a batch by standing.
-- Arguments: 1 batch_id.
-- Returns:   standing, count.
-- Invariant: answered from the index of batches alone.
SELECT standing, count(*) FROM jobs WHERE batch_id = ?1 GROUP BY standing;
