-- Purpose:   gives dead letters another life, as `redrive` does to one.
-- Arguments: 1 ids, in order, 2 now.
-- Returns:   id, epoch, queue, tenant, target, kind, priority, run_at, recoveries, concurrency_key after it; no row for
--            a job that is not dead.
-- Invariant: follows `jobs_lock`. A unique key comes back to one of them, where no other job took it meanwhile.
WITH risen AS (
    UPDATE jobs
    SET standing = 0, epoch = epoch + 1, redrives = redrives + 1, attempts = 0, recoveries = 0, releases = 0,
        run_at = $2, finished_at = NULL, start_by = NULL, deadline = NULL
    WHERE id = ANY ($1::uuid[]) AND standing > 1
    RETURNING id, epoch, queue, tenant, target, kind, priority, run_at, recoveries, concurrency_key, unique_key
), held AS (
    INSERT INTO unique_keys (tenant, key, job_id)
    SELECT tenant, unique_key, id FROM risen WHERE unique_key IS NOT NULL ORDER BY tenant, unique_key, id
    ON CONFLICT (tenant, key) DO NOTHING
)
SELECT id, epoch, queue, tenant, target, kind, priority, run_at, recoveries, concurrency_key FROM risen
