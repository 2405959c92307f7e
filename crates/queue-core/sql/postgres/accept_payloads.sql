-- Purpose:   the payloads of new jobs, and which of the jobs are new.
-- Arguments: 1 ids, 2 tenants, 3 bodies, 4 fallback chains as JSON; arrays of one length, in the order of the ids.
-- Returns:   one row: the ids that were not there before.
-- Invariant: the key of this table makes an id unique over all jobs, live and settled, so an accept that is asked
--            again finds its first try. Waits for whoever is accepting the same id.
WITH fresh AS (
    INSERT INTO payloads (id, tenant, body, fallback)
    SELECT * FROM unnest($1::uuid[], $2::text[], $3::bytea[], $4::text[])
    ON CONFLICT (id) DO NOTHING
    RETURNING id
)
SELECT coalesce(array_agg(id), '{}') FROM fresh
