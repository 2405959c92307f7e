-- Purpose:   what retention has taken away so far.
-- Arguments: none.
-- Returns:   class, removed, last, last_at, edge.
-- Invariant: a row for each class of which something went.
SELECT class, removed, last, last_at, edge FROM retention_notes
