-- Purpose:   forgets how long results are kept: they are gone, or their jobs are.
-- Arguments: 1 ids.
-- Returns:   nothing.
-- Invariant: follows `results_due` in its transaction.
DELETE FROM result_ttls WHERE job_id = ANY ($1::uuid[])
