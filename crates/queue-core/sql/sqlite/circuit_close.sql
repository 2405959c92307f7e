-- Purpose:   notes that a circuit is closed.
-- Arguments: 1 circuit.
-- Returns:   nothing; 1 row changed for whoever came first, 0 for everybody else.
-- Invariant: only a circuit that was noted as open closes.
DELETE FROM webhook_circuits WHERE circuit = ?1;
