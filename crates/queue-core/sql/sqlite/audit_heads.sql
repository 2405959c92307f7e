-- Purpose:   the ends of the last days of the audit log, newest first.
-- Arguments: 1 rows at most.
-- Returns:   day, seq, hash.
-- Invariant: writes nothing.
SELECT day, seq, hash FROM audit_heads ORDER BY day DESC LIMIT ?1;
