-- Purpose:   one attempt that ended, by a settle or with its worker.
-- Arguments: 1 the job's seq, 2 epoch, 3 number, 4 outcome, 5 session, 6 started_at, 7 finished_at, 8 error.
-- Returns:   nothing.
-- Invariant: one row for an epoch, written by the statement before it that moved the job on.
INSERT INTO attempts (seq, epoch, number, outcome, session, started_at, finished_at, error)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8);
