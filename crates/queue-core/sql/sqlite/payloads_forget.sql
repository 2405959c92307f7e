-- Purpose:   takes the oldest payloads away whose jobs have succeeded or were cancelled before a moment.
-- Arguments: 1 the moment, 2 the first id of that moment, 3 rows at most.
-- Returns:   nothing; as many rows changed as went.
-- Invariant: a job that may run again keeps its payload. Follows `memos_forget` in its transaction.
DELETE FROM payloads WHERE seq IN (
    SELECT p.seq FROM payloads p CROSS JOIN jobs j ON j.seq = p.seq
    WHERE p.seq <= coalesce((SELECT seq FROM jobs WHERE id < ?2 ORDER BY id DESC LIMIT 1), 0)
          AND j.standing IN (1, 3) AND j.finished_at < ?1
    ORDER BY p.seq LIMIT ?3);
