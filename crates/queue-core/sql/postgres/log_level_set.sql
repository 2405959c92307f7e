-- Purpose:   sets what every process logs.
-- Arguments: 1 filter (NULL: each its own), 2 until (NULL: no end).
-- Returns:   nothing.
-- Invariant: there is an end only where there is a filter.
UPDATE meta SET log_filter = $1, log_until = $2
