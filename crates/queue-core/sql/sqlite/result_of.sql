-- Purpose:   the result of a succeeded job.
-- Arguments: 1 id.
-- Returns:   body.
-- Invariant: writes nothing. One that is not there may have gone before its job: its time is over.
SELECT r.body FROM jobs j JOIN results r ON r.seq = j.seq WHERE j.id = ?1;
