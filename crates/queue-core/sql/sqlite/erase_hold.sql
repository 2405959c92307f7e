-- Purpose:   begins a step of the walk that takes rows of erased tenants away.
-- Arguments: 1 the beat that was seen, 2 now, 3 most numbers of one step.
-- Returns:   whether a walk begins with it; no row where somebody else has made a step.
-- Invariant: the scripts that follow look at the rows with the numbers that this says.
UPDATE erasure_walk
SET beat = beat + 1, passed = CASE WHEN began_at IS NULL THEN 0 ELSE upto END,
    upto = CASE WHEN began_at IS NULL THEN 0 ELSE upto END + ?3, began_at = coalesce(began_at, ?2)
WHERE beat = ?1
RETURNING passed = 0;
