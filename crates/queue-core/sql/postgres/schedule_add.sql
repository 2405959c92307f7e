-- Purpose:   keeps a new schedule.
-- Arguments: 1 id, 2 tenant, 3 name, 4 key_id, 5 template, 6 settings, 7 progress, 8 due_at or NULL, 9 created_at, 10 schedules of a
--            tenant at most.
-- Returns:   nothing; 1 row changed, or 0 where the name is taken, there are too many, or the id is there.
-- Invariant: a name is one schedule's of its tenant, by constraint.
INSERT INTO schedules (id, tenant, name, key_id, template, settings, progress, version, generation, due_at, created_at)
SELECT $1::uuid, $2::text, $3::text, $4::text, $5::text, $6::text, $7::text, 1, 1, $8::bigint, $9::bigint
WHERE (SELECT count(*) FROM schedules WHERE tenant = $2::text) < $10::bigint
ON CONFLICT DO NOTHING
