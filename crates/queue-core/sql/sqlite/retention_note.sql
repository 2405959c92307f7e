-- Purpose:   notes what went of a class.
-- Arguments: 1 class, 2 how much, 3 now, 4 before when all may be gone, or NULL.
-- Returns:   nothing.
-- Invariant: the edge only goes forward.
INSERT INTO retention_notes (class, removed, last, last_at, edge) VALUES (?1, ?2, ?2, ?3, ?4)
ON CONFLICT (class) DO UPDATE
SET removed = removed + excluded.removed, last = excluded.last, last_at = excluded.last_at,
    edge = coalesce(max(edge, excluded.edge), edge, excluded.edge);
