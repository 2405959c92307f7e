-- Purpose:   notes what became of an attempt.
-- Arguments: 1 seq, 2 owner, 3 state after it, 4 whether it was tried, 5 when it is due again, 6 message, 7 what it came to.
-- Returns:   endpoint_id, lane; no row where somebody else has claimed it since.
-- Invariant: only its owner changes it.
UPDATE webhook_deliveries
SET state = ?3, attempts = attempts + ?4, tries = tries + ?4, due_at = ?5, owner = NULL, body = coalesce(body, ?6),
    last = ?7
WHERE seq = ?1 AND owner = ?2 AND state = 0
RETURNING endpoint_id, lane;
