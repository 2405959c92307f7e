-- Purpose:   whether the journal was restored and nobody has confirmed it yet.
-- Arguments: none.
-- Returns:   whether.
-- Invariant: one row.
SELECT restored_at IS NOT NULL FROM meta
