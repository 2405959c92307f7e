-- Purpose:   the size of a table with its indexes and partitions, or of an index, and its name as a statement needs it.
-- Arguments: 1 name.
-- Returns:   bytes, name; no row where there is none.
-- Invariant: writes nothing.
SELECT CASE WHEN c.relkind = 'p' THEN (SELECT sum(pg_total_relation_size(t.relid)) FROM pg_partition_tree(c.oid) t)::bigint
            ELSE pg_total_relation_size(c.oid) END,
       quote_ident(c.relname)
FROM pg_class c
WHERE c.relname = $1 AND c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'p', 'i')
