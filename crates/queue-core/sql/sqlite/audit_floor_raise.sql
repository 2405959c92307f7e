-- Purpose:   says that the audit log was taken out up to the end of a later day.
-- Arguments: 1 day, 2 seq, 3 hash of its last row, 4 how many rows, 5 where they are, 6 the SHA-256 of that, 7 now.
-- Returns:   nothing; 1 row changed where it holds now.
-- Invariant: only forward, and to an end that the log has: see the triggers.
UPDATE audit_floor SET day = ?1, seq = ?2, hash = ?3, rows = rows + ?4, path = ?5, sha256 = ?6, at = ?7;
