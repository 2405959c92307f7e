-- Purpose:   drops the partitions of days that are over.
-- Arguments: 1 the moment before which a day must have ended.
-- Returns:   how many were dropped.
-- Invariant: a day with a job that still may run is kept.
SELECT drop_partitions($1)
