-- Purpose:   makes a job due that a budget sent away.
-- Arguments: 1 now, 2 tenant or NULL, 3 the key's id or NULL.
-- Returns:   id, epoch, queue, tenant, target, kind, priority, run_at, recoveries, concurrency_key after it; no row where there
--            is none.
-- Invariant: touches only a job that is not due, which nobody can be running. It gets back the place that its age gives.
UPDATE jobs
SET run_at = accepted_at, epoch = epoch + 1
WHERE seq = (
    SELECT seq FROM jobs
    WHERE standing = 0 AND error_class = 'budget' AND run_at > ?1 AND (?2 IS NULL OR tenant = ?2)
      AND (?3 IS NULL OR key_id = ?3)
    ORDER BY run_at LIMIT 1
)
RETURNING id, epoch, queue, tenant, target, kind, priority, run_at, recoveries, concurrency_key;
