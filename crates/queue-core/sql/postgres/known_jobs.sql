-- Purpose:   which of these ids were accepted before.
-- Arguments: 1 ids.
-- Returns:   one row: the ids that are there.
-- Invariant: writes nothing.
SELECT coalesce(array_agg(p.id), '{}')
FROM unnest($1::uuid[]) AS asked (id) JOIN payloads p ON p.id = asked.id
