-- Purpose:   puts the attempts of letters back.
-- Arguments: 1 job_ids, 2 tenants, 3 epochs, 4 numbers, 5 outcomes, 6 sessions, 7 started_at, 8 finished_at, 9 errors;
--            arrays of one length.
-- Returns:   nothing.
-- Invariant: follows `restore_letter` in its transaction.
INSERT INTO attempts (job_id, tenant, epoch, number, outcome, session, started_at, finished_at, error)
SELECT * FROM unnest($1::uuid[], $2::text[], $3::bigint[], $4::integer[], $5::text[], $6::uuid[], $7::bigint[],
                     $8::bigint[], $9::text[])
ON CONFLICT (job_id, epoch) DO NOTHING
