-- Purpose:   answers that needed no call, and what the call would have cost.
-- Arguments: the columns in the order below; arrays of one length, in the order of the key.
-- Returns:   nothing.
-- Invariant: what an attempt did not have to pay for is counted once, however often it is reported.
INSERT INTO savings (job_id, call_id, epoch, reason, tenant, queue, kind, operation, provider, model, tokens_in,
                     tokens_out, saved_nanousd, at)
SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::bigint[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[],
                     $9::text[], $10::text[], $11::bigint[], $12::bigint[], $13::bigint[], $14::bigint[])
ON CONFLICT (job_id, call_id, epoch, reason) DO NOTHING
