-- Purpose:   why a write found no row to change.
-- Arguments: 1 id.
-- Returns:   standing, epoch.
-- Invariant: read in the transaction of that write.
SELECT standing, epoch FROM jobs WHERE id = ?1;
