-- Purpose:   which settles were committed before the connection was lost.
-- Arguments: 1 ids, 2 epochs of the claims, 3 sessions; arrays of one length.
-- Returns:   id, epoch, run_at of the job, for each attempt that is there.
-- Invariant: read after `jobs_lock` has waited for the lost connection's transaction to end. A session ends an epoch at
--            most once, so the row is the settle that was asked for.
SELECT a.job_id, a.epoch, coalesce(j.run_at, s.run_at)
FROM unnest($1::uuid[], $2::bigint[], $3::uuid[]) AS asked (id, epoch, session)
JOIN attempts a ON a.job_id = asked.id AND a.epoch = asked.epoch AND a.session = asked.session
LEFT JOIN jobs j ON j.id = a.job_id
LEFT JOIN settled_jobs s ON s.id = a.job_id
WHERE a.outcome <> 'lost'
UNION ALL
SELECT s.id, s.epoch, s.run_at
FROM unnest($1::uuid[], $2::bigint[], $3::uuid[]) AS asked (id, epoch, session)
JOIN settled_jobs s ON s.id = asked.id AND s.epoch = asked.epoch AND s.session = asked.session
