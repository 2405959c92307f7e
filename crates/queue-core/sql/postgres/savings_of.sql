-- Purpose:   the answers of a job that needed no provider call, oldest first.
-- Arguments: 1 job_id.
-- Returns:   the columns of savings in the order below.
-- Invariant: writes nothing.
SELECT job_id, call_id, tenant, queue, kind, operation, epoch, provider, model, reason, tokens_in, tokens_out, saved_nanousd, at
FROM savings
WHERE job_id = $1
ORDER BY at, call_id
