-- Purpose:   takes back what `waste` marked: the next attempts of a redriven job find these answers.
-- Arguments: 1 job_id.
-- Returns:   nothing.
-- Invariant: follows `redrive` in its transaction.
UPDATE spend SET waste = NULL WHERE job_id = ?1 AND waste = 'died';
