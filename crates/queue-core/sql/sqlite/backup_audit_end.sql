-- Purpose:   the end of the audit log.
-- Arguments: none.
-- Returns:   day, number and hash of its last row; no row where it has none.
-- Invariant: writes nothing.
SELECT day, seq, hash FROM audit_heads ORDER BY day DESC LIMIT 1
