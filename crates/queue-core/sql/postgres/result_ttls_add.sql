-- Purpose:   notes how long results of new jobs are kept after the jobs' ends.
-- Arguments: 1 ids, 2 times in milliseconds, 3 moments before which none of them can be over; arrays of one length.
-- Returns:   nothing.
-- Invariant: in the transaction that accepts the jobs.
INSERT INTO result_ttls (job_id, ttl_ms, look_at)
SELECT * FROM unnest($1::uuid[], $2::bigint[], $3::bigint[])
ON CONFLICT (job_id) DO NOTHING
