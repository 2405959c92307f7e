-- Purpose:   the job of a claim that is about to be settled, if the claim still holds.
-- Arguments: 1 id, 2 epoch of the claim.
-- Returns:   seq, tenant, queue, kind, operation, unique_key, attempts, run_at, calls, cost_nanousd, webhook; no row where the
--            claim is fenced.
-- Invariant: read in the transaction of `settle`; apart from it, because a RETURNING clause costs a temporary table.
SELECT seq, tenant, queue, kind, operation, unique_key, attempts, run_at, calls, cost_nanousd, webhook
FROM jobs
WHERE id = ?1 AND epoch = ?2 AND standing = 0;
