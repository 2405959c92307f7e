-- Purpose:   takes the oldest attempts away whose jobs have succeeded or were cancelled before a moment.
-- Arguments: 1 the moment, 2 the first id of that moment, 3 jobs at most.
-- Returns:   nothing; as many rows changed as went.
-- Invariant: a job that may run again keeps its attempts.
DELETE FROM attempts WHERE seq IN (
    SELECT DISTINCT a.seq FROM attempts a CROSS JOIN jobs j ON j.seq = a.seq
    WHERE a.seq <= coalesce((SELECT seq FROM jobs WHERE id < ?2 ORDER BY id DESC LIMIT 1), 0)
          AND j.standing IN (1, 3) AND j.finished_at < ?1
    ORDER BY a.seq LIMIT ?3);
