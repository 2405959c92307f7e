-- Purpose:   adds rows to the audit log.
-- Arguments: 1 days, 2 seqs, 3 at, 4 actors, 5 roles, 6 tenants, 7 addresses, 8 actions, 9 subjects, 10 statuses, 11 details,
--            12 request_ids, 13 hashes of the rows before them, 14 hashes; arrays of one length.
-- Returns:   nothing.
-- Invariant: rows are never changed; `audit_lock` is held.
INSERT INTO audit_log (day, seq, at, actor, role, tenant, address, action, subject, status, detail, request_id, prev, hash)
SELECT * FROM unnest($1::integer[], $2::bigint[], $3::bigint[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[],
                     $9::text[], $10::integer[], $11::text[], $12::text[], $13::bytea[], $14::bytea[])
