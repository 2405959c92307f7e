-- Purpose:   makes the partitions of the coming days.
-- Arguments: 1 now, 2 days.
-- Returns:   how many were missing.
-- Invariant: runs with the rights of the tables' owner; asking again changes nothing.
SELECT create_partitions($1, $2)
