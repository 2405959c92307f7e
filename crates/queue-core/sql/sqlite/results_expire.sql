-- Purpose:   takes results away whose time is over, of those that are to be looked at.
-- Arguments: 1 now, 2 rows at most.
-- Returns:   nothing; as many rows changed as results went.
-- Invariant: the job stays a success; `results_forget` and `results_later` follow in its transaction.
DELETE FROM results WHERE seq IN (
    SELECT due.seq FROM (SELECT seq, ttl_ms FROM result_ttls WHERE look_at <= ?1 ORDER BY look_at LIMIT ?2) AS due
    CROSS JOIN jobs j ON j.seq = due.seq
    WHERE j.standing = 1 AND j.finished_at + due.ttl_ms <= ?1);
