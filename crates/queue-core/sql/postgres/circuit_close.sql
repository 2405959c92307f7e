-- Purpose:   notes that a circuit is closed, and tells it.
-- Arguments: 1 circuit, 2 now, 3 whose it is ('' for the installation's), 4 message, 5 the event's word, 6 its bit, 7 when
--            it was noted as open for the last time, at the latest.
-- Returns:   1 for whoever came first, 0 for everybody else.
-- Invariant: a circuit that closes is told once, and only if it was told of as open.
WITH noted AS (
    DELETE FROM webhook_circuits WHERE circuit = $1 AND at <= $7 RETURNING circuit
), told AS (
    INSERT INTO webhook_deliveries (endpoint_id, lane, tenant, event, at, due_at, body)
    SELECT e.id, e.id::text, $3::text, $5::text, $2::bigint, $2::bigint, $4::text
    FROM webhook_endpoints e
    WHERE e.enabled AND e.events & $6::bigint <> 0 AND e.tenant IN ($3::text, '') AND EXISTS (SELECT 1 FROM noted)
)
SELECT count(*) FROM noted
