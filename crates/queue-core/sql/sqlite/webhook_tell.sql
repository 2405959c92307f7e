-- Purpose:   writes the deliveries of an event, one for each receiver that wants to hear of it.
-- Arguments: 1 whose event it is ('' for the installation's), 2 its bit, 3 its word, 4 the job or NULL, 5 at, 6 message or
--            NULL.
-- Returns:   nothing.
-- Invariant: runs in the transaction that makes the event true.
INSERT INTO webhook_deliveries (endpoint_id, lane, tenant, event, job_id, at, due_at, body)
SELECT id, lower(hex(id)), ?1, ?3, ?4, ?5, ?5, ?6
FROM webhook_endpoints
WHERE tenant IN (?1, '') AND events & ?2 <> 0 AND enabled;
