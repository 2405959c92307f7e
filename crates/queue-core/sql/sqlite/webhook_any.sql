-- Purpose:   whether anybody wants to hear of anything.
-- Arguments: none.
-- Returns:   one row, or none.
-- Invariant: writes nothing.
SELECT 1 FROM webhook_endpoints WHERE enabled LIMIT 1;
