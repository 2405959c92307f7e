-- Purpose:   results whose time may be over.
-- Arguments: 1 now, 2 rows at most.
-- Returns:   job_id, ttl_ms.
-- Invariant: each is looked at by one transaction at a time.
SELECT job_id, ttl_ms FROM result_ttls WHERE look_at <= $1 ORDER BY look_at LIMIT $2 FOR UPDATE SKIP LOCKED
