-- Purpose:   what every process logs instead of its own.
-- Arguments: none.
-- Returns:   filter (NULL: each its own), until (NULL: no end).
-- Invariant: one row.
SELECT log_filter, log_until FROM meta
