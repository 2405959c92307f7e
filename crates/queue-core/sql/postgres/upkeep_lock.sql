-- Purpose:   takes the place of whoever does a chore, until this connection ends.
-- Arguments: none.
-- Returns:   whether it was free.
-- Invariant: one is at it in a database.
SELECT pg_try_advisory_lock(x'4c53484f'::integer, 6)
