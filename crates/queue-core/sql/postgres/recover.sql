-- Purpose:   hands on jobs whose workers were lost, with the attempts of those that had started.
-- Arguments: 1 ids, in order, 2 epochs of the lost claims, 3 added to recoveries, 4 sessions, 5 started_at or NULL;
--            arrays of one length, each id once; 6 now, 7 the error of a lost attempt.
-- Returns:   id, epoch, queue, tenant, target, kind, priority, run_at, recoveries, concurrency_key after it, then
--            operation; no row where the job moved on.
-- Invariant: the lost worker's settle finds another epoch from here on.
WITH lost AS (
    UPDATE jobs j
    SET epoch = j.epoch + 1, recoveries = j.recoveries + e.counts
    FROM unnest($1::uuid[], $2::bigint[], $3::integer[], $4::uuid[], $5::bigint[])
         AS e (id, epoch, counts, session, started_at)
    WHERE j.id = ANY (ARRAY[e.id]) AND j.epoch = e.epoch AND j.standing < 1
    RETURNING j.id, j.epoch, j.queue, j.tenant, j.target, j.kind, j.priority, j.run_at, j.recoveries,
              j.concurrency_key, j.operation, j.attempts, e.epoch AS claimed_epoch, e.session, e.started_at
), noted AS (
    INSERT INTO attempts (job_id, tenant, epoch, number, outcome, session, started_at, finished_at, error)
    SELECT id, tenant, claimed_epoch, attempts + 1, 'lost', session, started_at, $6, $7
    FROM lost
    WHERE started_at IS NOT NULL
)
SELECT id, epoch, queue, tenant, target, kind, priority, run_at, recoveries, concurrency_key, operation FROM lost
