-- Purpose:   the ends of the first days of the audit log that are there.
-- Arguments: 1 rows at most.
-- Returns:   day, seq, hash; oldest first.
-- Invariant: writes nothing.
SELECT day, seq, hash FROM audit_heads
WHERE day > coalesce((SELECT f.day FROM audit_floor f), -2147483648)
ORDER BY day LIMIT ?1;
