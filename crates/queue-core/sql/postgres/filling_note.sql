-- Purpose:   notes how far a life of the dispatcher is filled.
-- Arguments: 1 generation, 2 beat that the filler knows, 3 filled, 4 run_at and 5 id of the last row that was pushed.
-- Returns:   nothing; no row is changed where somebody else has noted something since, or a new life has begun.
-- Invariant: of two who fill a life, one goes on.
UPDATE meta
SET fill_beat = fill_beat + 1, filled = $3, filled_run_at = $4, filled_id = $5
WHERE generation = $1 AND fill_beat = $2
