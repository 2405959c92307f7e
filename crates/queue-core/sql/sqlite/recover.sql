-- Purpose:   hands on a job whose worker was lost.
-- Arguments: 1 id, 2 epoch of the lost claim, 3 added to recoveries.
-- Returns:   id, epoch, queue, tenant, target, kind, priority, run_at, recoveries, concurrency_key after it, then seq,
--            attempts, operation, unique_key, webhook; no row where the job moved on.
-- Invariant: the lost worker's settle finds another epoch from here on.
UPDATE jobs SET epoch = epoch + 1, recoveries = recoveries + ?3
WHERE id = ?1 AND epoch = ?2 AND standing = 0
RETURNING id, epoch, queue, tenant, target, kind, priority, run_at, recoveries, concurrency_key, seq, attempts,
          operation, unique_key, webhook;
