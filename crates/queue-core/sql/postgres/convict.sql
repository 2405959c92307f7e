-- Purpose:   makes jobs that too many workers died with dead letters.
-- Arguments: 1 ids, in order, 2 finished_at, 3 error, 4 its class, 5 its signature.
-- Returns:   nothing.
-- Invariant: follows `recover` in its transaction, so the jobs are live and held.
WITH convicted AS (
    UPDATE jobs SET standing = 2, finished_at = $2, error = $3, error_class = $4, error_signature = $5
    WHERE id = ANY ($1::uuid[]) AND standing < 1
    RETURNING id, tenant, unique_key, webhook, finished_at AS ended_at, '' AS everybody
), told AS (
    INSERT INTO webhook_deliveries (endpoint_id, url, lane, tenant, event, job_id, at, due_at)
    SELECT e.id, NULL, e.id::text, d.tenant, 'job.dead', d.id, d.ended_at, d.ended_at
    FROM convicted d JOIN webhook_endpoints e ON e.tenant = d.tenant
    WHERE e.enabled AND e.events & 2 <> 0
    UNION ALL
    SELECT e.id, NULL, e.id::text, d.tenant, 'job.dead', d.id, d.ended_at, d.ended_at
    FROM convicted d JOIN webhook_endpoints e ON e.tenant = d.everybody
    WHERE e.enabled AND e.events & 2 <> 0
    UNION ALL
    SELECT NULL, d.webhook, 'own ' || d.tenant || ' ' || split_part(d.webhook, '/', 3), d.tenant, 'job.dead', d.id, d.ended_at, d.ended_at
    FROM convicted d
    WHERE d.webhook IS NOT NULL
)
DELETE FROM unique_keys k USING convicted c
WHERE c.unique_key IS NOT NULL AND k.tenant = c.tenant AND k.key = c.unique_key AND k.job_id = c.id
