-- Purpose:   puts off the next look at results that are not over.
-- Arguments: 1 now, 2 rows at most, 3 the least time until the next look at a job that has not succeeded.
-- Returns:   nothing; as many rows changed as were put off.
-- Invariant: follows `results_forget` in its transaction. A job that lives cannot end before now.
UPDATE result_ttls
SET look_at = coalesce((SELECT j.finished_at + result_ttls.ttl_ms FROM jobs j WHERE j.seq = result_ttls.seq AND j.standing = 1),
                       ?1 + max(ttl_ms, ?3))
WHERE seq IN (SELECT seq FROM result_ttls WHERE look_at <= ?1 ORDER BY look_at LIMIT ?2);
