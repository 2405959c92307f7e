-- Purpose:   how many deliveries ended before a moment, and when the first one did.
-- Arguments: 1 the moment, 2 count no further.
-- Returns:   how many, the first moment of all.
-- Invariant: writes nothing.
SELECT (SELECT count(*) FROM (SELECT 1 FROM webhook_deliveries WHERE state > 0 AND due_at < $1 ORDER BY due_at LIMIT $2) AS old),
       (SELECT min(due_at) FROM webhook_deliveries WHERE state > 0)
