-- Purpose:   keeps providers' answers for the attempts that follow.
-- Arguments: 1 job_ids, 2 tenants, 3 call_ids, 4 request_hashes, 5 bodies; arrays of one length, in the order of the
--            key.
-- Returns:   nothing.
-- Invariant: the first answer of a call stays: later attempts may have built on it.
INSERT INTO memos (job_id, tenant, call_id, request_hash, body)
SELECT * FROM unnest($1::uuid[], $2::text[], $3::uuid[], $4::bytea[], $5::bytea[])
ON CONFLICT (job_id, call_id) DO NOTHING
