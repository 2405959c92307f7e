-- Purpose:   gives a dead letter another life.
-- Arguments: 1 id, 2 now, 3 target or NULL.
-- Returns:   id, epoch, queue, tenant, target, kind, priority, run_at, recoveries, concurrency_key after it; no row for
--            a job that is not dead.
-- Invariant: the ends of the old life (start_by, deadline) do not bind the new one; sums and last error stay. Its
--            unique key comes back where no other job took it meanwhile.
WITH risen AS (
    UPDATE jobs
    SET standing = 0, epoch = epoch + 1, redrives = redrives + 1, attempts = 0, recoveries = 0, releases = 0,
        run_at = $2, finished_at = NULL, start_by = NULL, deadline = NULL, target = coalesce($3, target)
    WHERE id = $1 AND standing > 1
    RETURNING id, epoch, queue, tenant, target, kind, priority, run_at, recoveries, concurrency_key, unique_key
), held AS (
    INSERT INTO unique_keys (tenant, key, job_id)
    SELECT tenant, unique_key, id FROM risen WHERE unique_key IS NOT NULL
    ON CONFLICT (tenant, key) DO NOTHING
)
SELECT id, epoch, queue, tenant, target, kind, priority, run_at, recoveries, concurrency_key FROM risen
