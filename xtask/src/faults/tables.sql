-- The journal at the end of a run, as one JSON object: what the checker of the fault suite compares with the histories.
-- `UNION ALL` and no join, so that a job which is in two tables, or charged twice, shows as two.
SELECT json_build_object(
    'jobs', (SELECT coalesce(json_agg(row_to_json(j)), '[]') FROM (
        SELECT id, standing, epoch, attempts, max_attempts, recoveries, finished_at, error_class,
               NULL::uuid AS session, NULL::bigint AS began_at FROM jobs
        UNION ALL
        SELECT id, standing, epoch, attempts, max_attempts, recoveries, finished_at, error_class,
               session, began_at FROM settled_jobs) j),
    'attempts', (SELECT coalesce(json_agg(row_to_json(a)), '[]') FROM (
        SELECT job_id, epoch, number, outcome, session, started_at FROM attempts) a),
    'spend', (SELECT coalesce(json_agg(row_to_json(s)), '[]') FROM (SELECT job_id, billed FROM spend) s),
    'charges', (SELECT coalesce(json_agg(row_to_json(c)), '[]') FROM (SELECT job_id FROM charges) c),
    'archives', (SELECT coalesce(json_agg(row_to_json(a)), '[]') FROM (
        SELECT archive_id AS id, sum(letters)::bigint AS letters FROM archive_objects GROUP BY archive_id) a),
    'totals', (SELECT row_to_json(t) FROM (
        SELECT coalesce(sum(accepted), 0) AS accepted, coalesce(sum(succeeded), 0) AS succeeded,
               coalesce(sum(dead), 0) AS dead, coalesce(sum(live), 0) AS live
        FROM queue_totals) t))
