-- Purpose:   notes that a budget has reached a level, and tells it.
-- Arguments: 1 scope, 2 measure, 3 period, 4 start of the period, 5 level, 6 spent, 7 budget, 8 at, 9 whose it is ('' for the
--            installation's), 10 the API key whose budget it is or NULL, 11 message.
-- Returns:   1 for whoever came first, 0 for everybody else.
-- Invariant: a level is noted and told once a period, over all processes.
WITH noted AS (
    INSERT INTO budget_alerts (scope, measure, period, since, level, spent, budget, at)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
    ON CONFLICT (scope, measure, period, since, level) DO NOTHING
    RETURNING at
), told AS (
    INSERT INTO webhook_deliveries (endpoint_id, lane, tenant, event, at, due_at, body)
    SELECT e.id, e.id::text, coalesce((SELECT k.tenant FROM api_keys k WHERE k.id = $10::text), $9::text), 'budget.alert', $8::bigint, $8::bigint, $11::text
    FROM webhook_endpoints e
    WHERE e.enabled AND e.events & 8 <> 0 AND e.tenant IN (coalesce((SELECT k.tenant FROM api_keys k WHERE k.id = $10::text), $9::text), '') AND EXISTS (SELECT 1 FROM noted)
)
SELECT count(*) FROM noted
