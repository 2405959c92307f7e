-- Purpose:   takes dead letters away.
-- Arguments: 1 ids, in order.
-- Returns:   id, queue, tenant of those that were dead.
-- Invariant: follows `jobs_lock`; `delete_bodies` takes the rest in the same transaction. Money stays.
DELETE FROM jobs WHERE id = ANY ($1::uuid[]) AND standing > 1 RETURNING id, queue, tenant
