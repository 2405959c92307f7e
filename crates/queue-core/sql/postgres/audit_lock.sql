-- Purpose:   holds the end of the audit log until the commit: the rows of several processes follow each other.
-- Arguments: none.
-- Returns:   one row, when it is held.
-- Invariant: nothing else is locked by a transaction that waits for it.
SELECT pg_advisory_xact_lock(x'4c53484f'::integer, 5)
