-- Purpose:   how many payloads may go: their jobs have succeeded or were cancelled before a moment; and the first end of all.
-- Arguments: 1 the moment, 2 the first id of that moment, 3 count no further.
-- Returns:   how many, the end of the first job that has one and its payload.
-- Invariant: writes nothing.
SELECT (SELECT count(*) FROM (
    SELECT p.seq FROM payloads p CROSS JOIN jobs j ON j.seq = p.seq
    WHERE p.seq <= coalesce((SELECT seq FROM jobs WHERE id < ?2 ORDER BY id DESC LIMIT 1), 0)
          AND j.standing IN (1, 3) AND j.finished_at < ?1
    ORDER BY p.seq LIMIT ?3)),
       (SELECT j.finished_at FROM payloads p CROSS JOIN jobs j ON j.seq = p.seq WHERE j.standing IN (1, 3) ORDER BY p.seq LIMIT 1);
