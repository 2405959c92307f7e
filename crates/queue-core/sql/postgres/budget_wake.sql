-- Purpose:   makes jobs due that a budget sent away.
-- Arguments: 1 now, 2 tenant or NULL, 3 the key's id or NULL, 4 limit.
-- Returns:   id, epoch, queue, tenant, target, kind, priority, run_at, recoveries, concurrency_key after it.
-- Invariant: touches only jobs that are not due, which nobody can be running. They get back the place that their age gives.
UPDATE jobs
SET run_at = accepted_at, epoch = epoch + 1
WHERE id = ANY (ARRAY(
    SELECT id FROM jobs
    WHERE standing < 1 AND error_class = 'budget' AND run_at > $1 AND ($2::text IS NULL OR tenant = $2)
      AND ($3::text IS NULL OR key_id = $3)
    ORDER BY run_at, id LIMIT $4
    FOR UPDATE SKIP LOCKED
)) AND standing < 1 AND run_at > $1
RETURNING id, epoch, queue, tenant, target, kind, priority, run_at, recoveries, concurrency_key
