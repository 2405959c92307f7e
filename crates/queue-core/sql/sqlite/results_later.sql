-- Purpose:   puts off the next look at results that are not over.
-- Arguments: 1 now, 2 rows at most.
-- Returns:   nothing; as many rows changed as were put off.
-- Invariant: follows `results_forget` in its transaction. A job that lives cannot end before now.
UPDATE result_ttls
SET look_at = ttl_ms + coalesce((SELECT j.finished_at FROM jobs j WHERE j.seq = result_ttls.seq AND j.standing = 1), ?1)
WHERE seq IN (SELECT seq FROM result_ttls WHERE look_at <= ?1 ORDER BY look_at LIMIT ?2);
