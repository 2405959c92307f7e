-- Purpose:   gives up what has waited too long behind a receiver that fails.
-- Arguments: 1 lane, 2 since when they have been due, 3 at most, 4 now, 5 their end.
-- Returns:   nothing; as many rows changed.
-- Invariant: a claim has moved `due_at` ahead, so nobody has one of these.
UPDATE webhook_deliveries SET state = 2, due_at = ?4, owner = NULL, last = ?5
WHERE seq IN (
    SELECT seq FROM webhook_deliveries WHERE state = 0 AND lane = ?1 AND due_at < ?2 ORDER BY due_at LIMIT ?3
);
