-- Purpose:   gives dead letters another life, as `redrive` does to one.
-- Arguments: 1 ids, in order, 2 now, 3 the epochs at which they were found dead; arrays of one length.
-- Returns:   id, epoch, queue, tenant, target, kind, priority, run_at, recoveries, concurrency_key after it; no row for
--            a job that is not dead at that epoch: one that had a life since is not given another.
-- Invariant: follows `jobs_lock`. A unique key comes back to one of them, where no other job took it meanwhile.
WITH risen AS (
    UPDATE jobs j
    SET standing = 0, epoch = j.epoch + 1, redrives = j.redrives + 1, attempts = 0, recoveries = 0, releases = 0,
        run_at = $2, finished_at = NULL, start_by = NULL, deadline = NULL
    FROM unnest($1::uuid[], $3::bigint[]) AS e (id, epoch)
    WHERE j.id = ANY (ARRAY[e.id]) AND j.epoch = e.epoch AND j.standing > 1
    RETURNING j.id, j.epoch, j.queue, j.tenant, j.target, j.kind, j.priority, j.run_at, j.recoveries, j.concurrency_key,
              j.unique_key
), held AS (
    INSERT INTO unique_keys (tenant, key, job_id)
    SELECT tenant, unique_key, id FROM risen WHERE unique_key IS NOT NULL ORDER BY tenant, unique_key, id
    ON CONFLICT (tenant, key) DO NOTHING
)
SELECT id, epoch, queue, tenant, target, kind, priority, run_at, recoveries, concurrency_key FROM risen
