-- Purpose:   forgets items of idempotency keys that are older than a moment.
-- Arguments: 1 the moment, 2 rows at most.
-- Returns:   nothing; as many rows changed as went.
-- Invariant: a key whose last item is gone is free. Keys of schedules' ticks, whose owners no caller can be, are kept eight
--            days longer.
DELETE FROM idempotency_keys WHERE (tenant, key, item) IN (
    SELECT tenant, key, item FROM idempotency_keys
    WHERE created_at < ?1 AND (created_at < ?1 - 691200000 OR instr(tenant, char(31) || 'schedule:') = 0)
    ORDER BY created_at LIMIT ?2);
