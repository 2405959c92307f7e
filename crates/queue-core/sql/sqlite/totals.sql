-- Purpose:   the numbers of every queue that had a job.
-- Arguments: none.
-- Returns:   queue, accepted, succeeded, cancelled, dead, died, live.
-- Invariant: cost depends on the number of queues, not of jobs.
SELECT queue, accepted, succeeded, cancelled, dead, died, live FROM queue_totals ORDER BY queue;
