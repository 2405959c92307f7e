-- Purpose:   takes API keys back.
-- Arguments: 1 id or NULL, 2 tenant or NULL, 3 now.
-- Returns:   their ids.
-- Invariant: one that was taken back before keeps its moment; asking again with the same moment answers the same.
UPDATE api_keys SET revoked_at = ?3
WHERE (?1 IS NULL OR id = ?1) AND (?2 IS NULL OR tenant = ?2)
      AND coalesce(revoked_at, ?3) = ?3
RETURNING id;
