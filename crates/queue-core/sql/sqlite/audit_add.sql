-- Purpose:   adds a row to the audit log.
-- Arguments: 1 day, 2 seq, 3 at, 4 actor, 5 role, 6 tenant, 7 address, 8 action, 9 subject, 10 status, 11 detail,
--            12 request_id, 13 hash of the row before it, 14 hash.
-- Returns:   nothing.
-- Invariant: rows are never changed.
INSERT INTO audit_log (day, seq, at, actor, role, tenant, address, action, subject, status, detail, request_id, prev, hash)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14);
