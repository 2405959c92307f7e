-- Purpose:   begins or ends maintenance.
-- Arguments: 1 since when (NULL: it ends), 2 why.
-- Returns:   nothing.
-- Invariant: one that is on keeps its first moment; its end confirms a restored journal.
UPDATE meta
SET maintenance_since = CASE WHEN $1::bigint IS NULL THEN NULL ELSE coalesce(maintenance_since, $1) END, maintenance_reason = $2,
    restored_at = CASE WHEN $1::bigint IS NULL THEN NULL ELSE restored_at END
