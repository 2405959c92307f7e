-- Purpose:   takes away rows of the audit log up to its floor.
-- Arguments: 1 rows at most.
-- Returns:   nothing; as many rows changed as went.
-- Invariant: a trigger refuses all others.
DELETE FROM audit_log WHERE (day, seq) IN (
    SELECT day, seq FROM audit_log WHERE day <= (SELECT f.day FROM audit_floor f) ORDER BY day, seq LIMIT ?1);
