-- Purpose:   notes that a circuit is open, and tells it; or that it still is.
-- Arguments: 1 circuit, 2 now, 3 whose it is ('' for the installation's), 4 message, 5 the event's word, 6 its bit.
-- Returns:   1 for whoever came first, 0 for everybody else.
-- Invariant: a circuit that opens is told once, until it has closed.
WITH noted AS (
    INSERT INTO webhook_circuits (circuit, at) VALUES ($1, $2)
    ON CONFLICT (circuit) DO UPDATE SET at = greatest(webhook_circuits.at, excluded.at)
    RETURNING xmax = 0 AS is_first
), told AS (
    INSERT INTO webhook_deliveries (endpoint_id, lane, tenant, event, at, due_at, body)
    SELECT e.id, e.id::text, $3::text, $5::text, $2::bigint, $2::bigint, $4::text
    FROM webhook_endpoints e
    WHERE e.enabled AND e.events & $6::bigint <> 0 AND e.tenant IN ($3::text, '') AND EXISTS (SELECT 1 FROM noted WHERE is_first)
)
SELECT count(*) FROM noted WHERE is_first
