-- Purpose:   makes a delivery due at once, as if it had never been tried.
-- Arguments: 1 id, 2 now.
-- Returns:   nothing; 1 row changed, or 0 where there is none.
-- Invariant: whoever has claimed it notes nothing any more. Its message stays what it was.
UPDATE webhook_deliveries SET state = 0, tries = 0, due_at = ?2, owner = NULL WHERE id = ?1;
