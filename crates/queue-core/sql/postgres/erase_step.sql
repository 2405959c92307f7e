-- Purpose:   one step of that walk.
-- Arguments: 1 the beat that was seen, 2 now, 3 most blocks, 4 waits until the next look, after the first walk that finds nothing and
--            each further one.
-- Returns:   beat, began_at (NULL: the walk has ended); no row where somebody else has made a step.
-- Invariant: what it takes away and how far it is are one transaction; a crash leaves the step before.
SELECT beat_now, walk_began_at FROM erase_step($1, $2, $3, $4)
