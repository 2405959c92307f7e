-- Purpose:   forgets how long results are kept, of those that are to be looked at: they are gone, or their jobs are.
-- Arguments: 1 now, 2 rows at most.
-- Returns:   nothing; as many rows changed as were forgotten.
-- Invariant: follows `results_expire` in its transaction.
DELETE FROM result_ttls WHERE seq IN (
    SELECT due.seq FROM (SELECT seq, ttl_ms FROM result_ttls WHERE look_at <= ?1 ORDER BY look_at LIMIT ?2) AS due
    LEFT JOIN jobs j ON j.seq = due.seq
    WHERE j.seq IS NULL OR j.standing = 3 OR (j.standing = 1 AND j.finished_at + due.ttl_ms <= ?1));
