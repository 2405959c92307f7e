-- Purpose:   whether letters still are what an object was made of.
-- Arguments: 1 ids, 2 the epochs at which they were found dead; arrays of one length.
-- Returns:   how many are dead at that epoch, and how many calls were recorded for these.
-- Invariant: follows `jobs_lock`: what it finds stays so until the commit. A call that is recorded meanwhile waits, and
--            stays in the ledger.
SELECT count(*), coalesce(sum(j.calls), 0)::bigint
FROM unnest($1::uuid[], $2::bigint[]) AS e (id, epoch)
JOIN jobs j ON j.id = ANY (ARRAY[e.id])
WHERE j.epoch = e.epoch AND j.standing > 1
