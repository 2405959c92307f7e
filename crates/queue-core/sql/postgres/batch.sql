-- Purpose:   jobs of a batch by standing.
-- Arguments: 1 batch_id.
-- Returns:   standing, count.
-- Invariant: answered from the indexes of batches alone.
SELECT standing, count(*)
FROM (SELECT standing FROM jobs WHERE batch_id = $1
      UNION ALL
      SELECT standing FROM settled_jobs WHERE batch_id = $1) AS members
GROUP BY standing
