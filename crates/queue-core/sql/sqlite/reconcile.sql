-- Purpose:   hands on a live job that the dispatcher does not know.
-- Arguments: 1 id, 2 epoch that it was seen at.
-- Returns:   id, epoch, queue, tenant, target, kind, priority, run_at, recoveries, concurrency_key after it; no row
--            where it moved on.
-- Invariant: whoever still works on it is fenced.
UPDATE jobs SET epoch = epoch + 1
WHERE id = ?1 AND epoch = ?2 AND standing = 0
RETURNING id, epoch, queue, tenant, target, kind, priority, run_at, recoveries, concurrency_key;
