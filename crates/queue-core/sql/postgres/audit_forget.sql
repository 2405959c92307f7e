-- Purpose:   takes away rows of the audit log up to its floor.
-- Arguments: 1 rows at most.
-- Returns:   how many.
-- Invariant: see the function of this name.
SELECT audit_forget($1)
