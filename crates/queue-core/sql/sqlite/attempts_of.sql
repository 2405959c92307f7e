-- Purpose:   the attempts of a job, oldest first.
-- Arguments: 1 id.
-- Returns:   epoch, number, outcome, session, started_at, finished_at, error.
-- Invariant: writes nothing.
SELECT a.epoch, a.number, a.outcome, a.session, a.started_at, a.finished_at, a.error
FROM jobs j JOIN attempts a ON a.seq = j.seq
WHERE j.id = ?1
ORDER BY a.epoch;
