-- Purpose:   logs an attempt of a delivery.
-- Arguments: 1 seq, 2 at, 3 duration_ms, 4 status, 5 answer, 6 error.
-- Returns:   nothing.
-- Invariant: an attempt that was made is logged, whoever has the delivery now.
INSERT INTO webhook_attempts (delivery, at, duration_ms, status, answer, error) VALUES (?1, ?2, ?3, ?4, ?5, ?6);
