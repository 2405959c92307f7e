-- Purpose:   the end of the audit log.
-- Arguments: none.
-- Returns:   day, seq, hash; no row where nothing was ever logged.
-- Invariant: whoever adds rows behind it holds the lock of the log, or is the one writer.
SELECT day, seq, hash FROM audit_heads ORDER BY day DESC LIMIT 1;
