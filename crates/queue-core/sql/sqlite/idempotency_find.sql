-- Purpose:   what a repeated request was answered with.
-- Arguments: 1 owner, 2 key, 3 item.
-- Returns:   fingerprint, job_id of the item; else those of the first item that the key accepted, with NULL for the job.
-- Invariant: read in the transaction that inserts, so two equal requests of one batch see each other. The key belongs
--            to a whole body: an item that is not there is judged by its neighbours.
SELECT fingerprint, job_id FROM idempotency_keys WHERE tenant = ?1 AND key = ?2 AND item = ?3
UNION ALL
SELECT * FROM (SELECT fingerprint, NULL FROM idempotency_keys WHERE tenant = ?1 AND key = ?2 ORDER BY item LIMIT 1)
LIMIT 1;
