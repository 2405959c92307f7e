-- Purpose:   writes the delivery of a job's end to the job's own URL.
-- Arguments: 1 tenant, 2 url, 3 lane, 4 event, 5 job, 6 at.
-- Returns:   nothing.
-- Invariant: runs in the transaction that ends the job.
INSERT INTO webhook_deliveries (url, lane, tenant, event, job_id, at, due_at)
VALUES (?2, ?3, ?1, ?4, ?5, ?6, ?6);
