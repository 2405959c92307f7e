-- Purpose:   gives a dead letter another life.
-- Arguments: 1 id, 2 now, 3 target or NULL, 4 the epoch at which it was found dead, or NULL for any.
-- Returns:   id, epoch, queue, tenant, target, kind, priority, run_at, recoveries, concurrency_key after it, then
--            unique_key, seq; no row for a job that is not dead.
-- Invariant: the ends of the old life (start_by, deadline) do not bind the new one; sums and last error stay.
UPDATE jobs
SET standing = 0, epoch = epoch + 1, redrives = redrives + 1, attempts = 0, recoveries = 0, releases = 0, run_at = ?2,
    finished_at = NULL, start_by = NULL, deadline = NULL, target = coalesce(?3, target)
WHERE id = ?1 AND standing = 2 AND epoch = coalesce(?4, epoch)
RETURNING id, epoch, queue, tenant, target, kind, priority, run_at, recoveries, concurrency_key, unique_key,
          seq;
