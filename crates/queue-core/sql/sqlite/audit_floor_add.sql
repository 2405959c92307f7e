-- Purpose:   says for the first time that the audit log was taken out up to the end of a day.
-- Arguments: 1 day, 2 seq, 3 hash of its last row, 4 how many rows, 5 where they are, 6 the SHA-256 of that, 7 now.
-- Returns:   nothing; 1 row changed where it holds now.
-- Invariant: only to an end that the log has: see the triggers.
INSERT INTO audit_floor (one, day, seq, hash, rows, path, sha256, at)
SELECT 1, ?1, ?2, ?3, ?4, ?5, ?6, ?7 WHERE NOT EXISTS (SELECT 1 FROM audit_floor);
