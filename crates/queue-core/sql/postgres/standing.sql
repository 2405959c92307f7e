-- Purpose:   why a write found no row to change.
-- Arguments: 1 id.
-- Returns:   standing, epoch.
-- Invariant: read after that write, in its transaction.
SELECT standing, epoch FROM jobs WHERE id = $1
UNION ALL
SELECT standing, epoch FROM settled_jobs WHERE id = $1
