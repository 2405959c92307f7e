-- Purpose:   hands on live jobs that the dispatcher does not know.
-- Arguments: 1 ids, in order, 2 epochs that they were seen at; arrays of one length, each id once.
-- Returns:   id, epoch, queue, tenant, target, kind, priority, run_at, recoveries, concurrency_key after it; no row
--            where a job moved on.
-- Invariant: whoever still works on them is fenced.
UPDATE jobs j
SET epoch = j.epoch + 1
FROM unnest($1::uuid[], $2::bigint[]) AS e (id, epoch)
WHERE j.id = ANY (ARRAY[e.id]) AND j.epoch = e.epoch AND j.standing < 1
RETURNING j.id, j.epoch, j.queue, j.tenant, j.target, j.kind, j.priority, j.run_at, j.recoveries, j.concurrency_key
