-- Purpose:   says that the audit log was taken out up to the end of a day.
-- Arguments: 1 day, 2 seq, 3 hash of its last row, 4 how many rows, 5 where they are, 6 the SHA-256 of that, 7 now.
-- Returns:   whether the floor was raised.
-- Invariant: only forward, and to an end that the log has; see the function of this name.
SELECT audit_raise_floor($1, $2, $3, $4, $5, $6, $7)
