-- Purpose:   takes jobs away that succeeded or were cancelled.
-- Arguments: 1 ids, 2 the epochs at which they were found; arrays of one length.
-- Returns:   id of those that are there at that epoch: not a dead letter that has had another life since and succeeded.
-- Invariant: follows `settled_lock`; `delete_bodies` takes the rest in the same transaction. Money stays, and so do the
--            numbers of queues, which count since the queue exists.
DELETE FROM settled_jobs j
USING unnest($1::uuid[], $2::bigint[]) AS e (id, epoch)
WHERE j.id = ANY (ARRAY[e.id]) AND j.epoch = e.epoch
RETURNING j.id
