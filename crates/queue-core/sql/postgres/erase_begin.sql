-- Purpose:   orders that a tenant is erased, or that its rows are looked for again.
-- Arguments: 1 tenant, 2 pseudonym, 3 accepted_at, 4 when the first walk is due.
-- Returns:   the row, as `erasures`.
-- Invariant: one that is there keeps its pseudonym and its moment.
INSERT INTO erasures AS e (tenant, pseudonym, accepted_at, due_at) VALUES ($1, $2, $3, $4)
ON CONFLICT (tenant) DO UPDATE SET due_at = least(e.due_at, excluded.due_at), looks = 0
RETURNING tenant, pseudonym, accepted_at, erased, finished_at, checked_at, due_at
