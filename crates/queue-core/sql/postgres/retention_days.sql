-- Purpose:   days that have tables of their own.
-- Arguments: 1 the moment before which they began.
-- Returns:   part, day_ms, row_count, bytes, last_end, live, dead; by day.
-- Invariant: writes nothing; see the function of this name.
SELECT part, day_ms, row_count, bytes, last_end, live, dead FROM retention_days($1)
