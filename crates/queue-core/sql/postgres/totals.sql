-- Purpose:   the numbers of every queue that had a job.
-- Arguments: none.
-- Returns:   queue, accepted, succeeded, cancelled, dead, died, live.
-- Invariant: cost depends on the number of queues, not of jobs.
SELECT queue, sum(accepted)::bigint, sum(succeeded)::bigint, sum(cancelled)::bigint, sum(dead)::bigint,
       sum(died)::bigint, sum(live)::bigint
FROM queue_totals
GROUP BY queue
