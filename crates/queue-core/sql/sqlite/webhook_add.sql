-- Purpose:   makes a receiver.
-- Arguments: 1 id, 2 tenant ('' for everybody's events), 3 url, 4 events, 5 description, 6 created_at, 7 receivers at most.
-- Returns:   nothing; 1 row changed, or 0 where there are too many.
-- Invariant: its secret is put in the same transaction.
INSERT INTO webhook_endpoints (id, tenant, url, events, enabled, description, version, created_at)
SELECT ?1, ?2, ?3, ?4, 1, ?5, 1, ?6
WHERE (SELECT count(*) FROM webhook_endpoints) < ?7;
