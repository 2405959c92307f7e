-- Purpose:   ends a live job because someone asked for it.
-- Arguments: 1 id, 2 finished_at, 3 reason.
-- Returns:   epoch after it, tenant, queue, unique_key, seq, attempts, webhook; no row for a job that is final or missing.
-- Invariant: a running attempt is fenced by standing and by epoch.
UPDATE jobs SET standing = 3, epoch = epoch + 1, finished_at = ?2, cancel_reason = ?3
WHERE id = ?1 AND standing = 0
RETURNING epoch, tenant, queue, unique_key, seq, attempts, webhook;
