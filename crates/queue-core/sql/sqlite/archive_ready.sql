-- Purpose:   whether a letter still is what an object was made of.
-- Arguments: 1 id, 2 the epoch at which it was found dead.
-- Returns:   how many calls were recorded for it; no row where it is not dead at that epoch.
-- Invariant: in the transaction that takes it out of the journal.
SELECT calls FROM jobs WHERE id = ?1 AND epoch = ?2 AND standing = 2;
