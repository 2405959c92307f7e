-- Purpose:   takes back what `waste` marked: the next attempts of redriven jobs find these answers.
-- Arguments: 1 job_ids.
-- Returns:   nothing.
-- Invariant: follows `redrive_many` in its transaction.
UPDATE spend SET waste = NULL WHERE job_id = ANY ($1::uuid[]) AND waste = 'died'
