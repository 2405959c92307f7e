-- Purpose:   takes the table of a day out of everybody's sight.
-- Arguments: 1 part, 2 the day's begin, 3 the moment before which all in it must have ended.
-- Returns:   its bytes; NULL where it is kept.
-- Invariant: see the function of this name.
SELECT retention_drop($1, $2, $3)
