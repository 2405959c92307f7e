-- Purpose:   notes an object of an archive.
-- Arguments: 1 id of the operation, 2 path, 3 tenant, 4 sha256, 5 bytes, 6 letters, 7 calls, 8 cost_nanousd,
--            9 first_ended_at, 10 last_ended_at.
-- Returns:   nothing.
-- Invariant: in the transaction that takes its letters out of the journal.
INSERT INTO archive_objects (archive_id, path, tenant, sha256, bytes, letters, calls, cost_nanousd, first_ended_at, last_ended_at)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10);
