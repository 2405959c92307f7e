-- Purpose:   the result of a job that succeeded just now.
-- Arguments: 1 the job's seq, 2 body.
-- Returns:   nothing.
-- Invariant: a job succeeds at most once.
INSERT INTO results (seq, body) VALUES (?1, ?2);
