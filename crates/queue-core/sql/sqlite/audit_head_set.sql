-- Purpose:   notes the last row of a day.
-- Arguments: 1 day, 2 seq, 3 hash.
-- Returns:   nothing; 1 row changed.
-- Invariant: follows the rows in their transaction.
INSERT INTO audit_heads (day, seq, hash) VALUES (?1, ?2, ?3)
ON CONFLICT (day) DO UPDATE SET seq = excluded.seq, hash = excluded.hash;
