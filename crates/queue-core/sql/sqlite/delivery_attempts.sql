-- Purpose:   the last attempts of a delivery.
-- Arguments: 1 seq, 2 rows at most.
-- Returns:   at, duration_ms, status, answer, error; newest first.
-- Invariant: writes nothing.
SELECT at, duration_ms, status, answer, error
FROM webhook_attempts
WHERE delivery = ?1
ORDER BY number DESC
LIMIT ?2;
