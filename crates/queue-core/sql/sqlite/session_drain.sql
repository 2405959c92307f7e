-- Purpose:   orders a worker to drain, or to claim again.
-- Arguments: 1 id, 2 whether it drains.
-- Returns:   nothing; no row is changed where no such worker is registered.
-- Invariant: touches one session.
UPDATE sessions SET draining = ?2 WHERE id = ?1
