-- Purpose:   notes that a circuit is still open.
-- Arguments: 1 circuit, 2 now.
-- Returns:   nothing.
-- Invariant: never goes back.
UPDATE webhook_circuits SET at = max(at, ?2) WHERE circuit = ?1;
