-- Purpose:   has the rows of erased tenants looked for again.
-- Arguments: 1 those that were last looked for before this moment, 2 now.
-- Returns:   nothing; how many rows were changed.
-- Invariant: those that are due already stay as they are.
UPDATE erasures SET due_at = ?2, looks = 0 WHERE coalesce(checked_at, ?1 - 1) < ?1 AND (due_at IS NULL OR due_at > ?2);
