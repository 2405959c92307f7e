-- Purpose:   changes a live job.
-- Arguments: 1 id, 2 epoch that the caller saw or NULL, 3 priority or NULL, 4 run_at or NULL, 5 target or NULL.
-- Returns:   id, epoch, queue, tenant, target, kind, priority, run_at, recoveries, concurrency_key after it, then seq;
--            no row where it is final, missing or at another epoch.
-- Invariant: what was claimed before the change is fenced.
UPDATE jobs
SET epoch = epoch + 1, priority = coalesce(?3, priority), run_at = coalesce(?4, run_at), target = coalesce(?5, target)
WHERE id = ?1 AND standing = 0 AND (?2 IS NULL OR epoch = ?2)
RETURNING id, epoch, queue, tenant, target, kind, priority, run_at, recoveries, concurrency_key, seq;
