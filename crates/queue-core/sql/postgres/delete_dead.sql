-- Purpose:   takes dead letters away.
-- Arguments: 1 ids, in order, 2 the epochs at which they were found dead; arrays of one length.
-- Returns:   id, queue, tenant of those that are dead at that epoch.
-- Invariant: follows `jobs_lock`; `delete_bodies` takes the rest in the same transaction. Money stays.
DELETE FROM jobs j
USING unnest($1::uuid[], $2::bigint[]) AS e (id, epoch)
WHERE j.id = ANY (ARRAY[e.id]) AND j.epoch = e.epoch AND j.standing > 1
RETURNING j.id, j.queue, j.tenant
