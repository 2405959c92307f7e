-- Purpose:   puts off the next look at results.
-- Arguments: 1 ids, 2 moments; arrays of one length.
-- Returns:   nothing.
-- Invariant: follows `results_due` in its transaction.
UPDATE result_ttls r SET look_at = e.at
FROM unnest($1::uuid[], $2::bigint[]) AS e (id, at)
WHERE r.job_id = ANY (ARRAY[e.id])
