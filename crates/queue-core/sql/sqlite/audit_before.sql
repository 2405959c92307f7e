-- Purpose:   rows of the audit log before a place.
-- Arguments: 1 day, 2 seq, 3 rows at most.
-- Returns:   day, seq, at, actor, role, tenant, address, action, subject, status, detail, request_id, prev, hash.
-- Invariant: writes nothing.
SELECT day, seq, at, actor, role, tenant, address, action, subject, status, detail, request_id, prev, hash
FROM audit_log
WHERE (day, seq) < (?1, ?2)
ORDER BY day DESC, seq DESC
LIMIT ?3;
