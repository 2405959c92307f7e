-- Purpose:   an answer that needed no call, and what the call would have cost.
-- Arguments: the columns in the order below.
-- Returns:   nothing.
-- Invariant: what an attempt did not have to pay for is counted once, however often it is reported.
INSERT INTO savings (job_id, call_id, epoch, reason, tenant, queue, kind, operation, provider, model, tokens_in,
                     tokens_out, saved_nanousd, at)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)
ON CONFLICT (job_id, call_id, epoch, reason) DO NOTHING;
