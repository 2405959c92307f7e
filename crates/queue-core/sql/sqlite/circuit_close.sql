-- Purpose:   notes that a circuit is closed.
-- Arguments: 1 circuit, 2 when it was noted as open for the last time, at the latest.
-- Returns:   nothing; 1 row changed for whoever came first, 0 for everybody else.
-- Invariant: only a circuit that was noted as open closes.
DELETE FROM webhook_circuits WHERE circuit = ?1 AND at <= ?2;
