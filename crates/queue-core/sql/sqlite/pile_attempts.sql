-- Purpose:   how many jobs have attempts that may go; and the first end of all.
-- Arguments: 1 the moment, 2 the first id of that moment, 3 count no further.
-- Returns:   how many, the end of the first job that has one and an attempt.
-- Invariant: writes nothing.
SELECT (SELECT count(*) FROM (
    SELECT DISTINCT a.seq FROM attempts a CROSS JOIN jobs j ON j.seq = a.seq
    WHERE a.seq <= coalesce((SELECT seq FROM jobs WHERE id < ?2 ORDER BY id DESC LIMIT 1), 0)
          AND j.standing IN (1, 3) AND j.finished_at < ?1
    ORDER BY a.seq LIMIT ?3)),
       (SELECT j.finished_at FROM attempts a CROSS JOIN jobs j ON j.seq = a.seq WHERE j.standing IN (1, 3) ORDER BY a.seq LIMIT 1);
