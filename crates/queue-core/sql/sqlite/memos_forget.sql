-- Purpose:   takes the answers away that were kept for another attempt of jobs whose payloads go.
-- Arguments: 1 the moment, 2 the first id of that moment, 3 rows at most.
-- Returns:   nothing.
-- Invariant: as `payloads_forget`, which follows in its transaction.
DELETE FROM memos WHERE job_id IN (
    SELECT j.id FROM payloads p CROSS JOIN jobs j ON j.seq = p.seq
    WHERE p.seq <= coalesce((SELECT seq FROM jobs WHERE id < ?2 ORDER BY id DESC LIMIT 1), 0)
          AND j.standing IN (1, 3) AND j.finished_at < ?1
    ORDER BY p.seq LIMIT ?3);
