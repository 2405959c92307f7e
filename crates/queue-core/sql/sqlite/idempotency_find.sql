-- Purpose:   what a repeated request was answered with.
-- Arguments: 1 tenant, 2 key, 3 item.
-- Returns:   fingerprint, job_id.
-- Invariant: read in the transaction that inserts, so two equal requests of one batch see each other.
SELECT fingerprint, job_id FROM idempotency_keys WHERE tenant = ?1 AND key = ?2 AND item = ?3;
