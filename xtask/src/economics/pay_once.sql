-- Purpose:   the journal at the end of `economics --only pay-once`, as one JSON object.
-- Arguments: none.
-- Returns:   jobs (id, standing), spend (job_id, call_id, billed, cost_nanousd), charges (job_id, charge_nanousd).
-- Invariant: `UNION ALL` and no join: a job that is in two tables, or charged twice, shows as two.
SELECT json_build_object(
    'jobs', (SELECT coalesce(json_agg(row_to_json(j)), '[]') FROM (
        SELECT id, standing FROM jobs UNION ALL SELECT id, standing FROM settled_jobs) j),
    'spend', (SELECT coalesce(json_agg(row_to_json(s)), '[]') FROM (
        SELECT job_id, call_id, billed, cost_nanousd FROM spend) s),
    'charges', (SELECT coalesce(json_agg(row_to_json(c)), '[]') FROM (
        SELECT job_id, charge_nanousd FROM charges) c))
