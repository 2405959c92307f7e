-- Purpose:   notes that a circuit is open.
-- Arguments: 1 circuit, 2 now.
-- Returns:   nothing; 1 row changed for whoever came first, 0 for everybody else.
-- Invariant: a circuit that opens is noted once, until it has closed.
INSERT INTO webhook_circuits (circuit, at) VALUES (?1, ?2) ON CONFLICT (circuit) DO NOTHING;
