-- Purpose:   remembers which job a request became.
-- Arguments: 1 owner, 2 key, 3 item, 4 fingerprint, 5 job_id, 6 created_at.
-- Returns:   nothing.
-- Invariant: the first request with a key owns it.
INSERT INTO idempotency_keys (tenant, key, item, fingerprint, job_id, created_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6);
