-- Purpose:   takes a delivery that is due.
-- Arguments: 1 seq, 2 now, 3 when others may take it, 4 who takes it.
-- Returns:   nothing; 1 row changed, or 0 where somebody else has taken it.
-- Invariant: an owner that dies leaves a row that becomes due by itself.
UPDATE webhook_deliveries SET due_at = ?3, owner = ?4 WHERE seq = ?1 AND state = 0 AND due_at <= ?2;
