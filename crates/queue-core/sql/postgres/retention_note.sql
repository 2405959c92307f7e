-- Purpose:   notes what went of a class.
-- Arguments: 1 class, 2 how much, 3 now, 4 before when all may be gone, or NULL.
-- Returns:   nothing.
-- Invariant: the edge only goes forward.
INSERT INTO retention_notes AS n (class, removed, last, last_at, edge) VALUES ($1, $2, $2, $3, $4)
ON CONFLICT (class) DO UPDATE
SET removed = n.removed + excluded.removed, last = excluded.last, last_at = excluded.last_at, edge = greatest(n.edge, excluded.edge)
