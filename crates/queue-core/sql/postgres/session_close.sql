-- Purpose:   removes a worker process that left.
-- Arguments: 1 id.
-- Returns:   nothing.
-- Invariant: asking again changes nothing.
DELETE FROM sessions WHERE id = $1
