-- Purpose:   up to where the audit log was taken out.
-- Arguments: none.
-- Returns:   day, seq, hash, rows, path, sha256, at; no row where all of it is there.
-- Invariant: writes nothing.
SELECT day, seq, hash, rows, path, sha256, at FROM audit_floor;
