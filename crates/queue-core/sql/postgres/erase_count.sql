-- Purpose:   how many rows of a table are a tenant's.
-- Arguments: 1 table, 2 tenant.
-- Returns:   how many.
-- Invariant: reads the whole table: only for whoever asks what an erasure would take away.
SELECT erase_count($1, $2)
