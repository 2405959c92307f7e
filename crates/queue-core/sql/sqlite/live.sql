-- Purpose:   a page of live jobs by due time.
-- Arguments: 1 run_at and 2 id of the row before the page, 3 due by, 4 accepted by, 5 limit.
-- Returns:   id, epoch, queue, tenant, target, kind, priority, run_at, recoveries, concurrency_key.
-- Invariant: walks the index of live rows only; writes nothing.
SELECT id, epoch, queue, tenant, target, kind, priority, run_at, recoveries, concurrency_key
FROM jobs
WHERE standing = 0 AND (run_at, id) > (?1, ?2) AND run_at <= ?3 AND accepted_at <= ?4
ORDER BY run_at, id
LIMIT ?5;
