-- Purpose:   takes jobs away that succeeded or were cancelled.
-- Arguments: 1 ids.
-- Returns:   id of those that were there.
-- Invariant: follows `settled_lock`; `delete_bodies` takes the rest in the same transaction. Money stays, and so do the
--            numbers of queues, which count since the queue exists.
DELETE FROM settled_jobs WHERE id = ANY ($1::uuid[]) RETURNING id
