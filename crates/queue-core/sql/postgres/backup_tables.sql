-- Purpose:   how to count pieces of every table of the journal, and sum their rows.
-- Arguments: 1 columns of meta that are left out.
-- Returns:   table, statement of a piece (arguments: 1 its first place, 2 the place behind it) or NULL, pages; a row for each partition,
--            under its table's name, and one for the partitioned table, which has no rows of its own.
-- Invariant: writes nothing; a partitioned table counts as one. Pages are counted behind the snapshot: all that it sees is in them.
SELECT r.relname::text,
       CASE WHEN c.relkind = 'r'
            THEN format('SELECT count(*), coalesce(sum(hashtextextended(%s::text, 0)), 0)::text FROM ONLY %I.%I AS its_row
                         WHERE its_row.ctid >= $1::text::tid AND its_row.ctid < $2::text::tid',
                        CASE WHEN c.relname = 'meta' THEN format('(to_jsonb(its_row) - %L::text[])', $1 || ARRAY['restored_at'])
                             ELSE 'its_row' END,
                        n.nspname, c.relname) END,
       CASE WHEN c.relkind = 'r' THEN pg_relation_size(c.oid) / current_setting('block_size')::bigint ELSE 0 END
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     JOIN pg_class r ON r.oid = coalesce(pg_partition_root(c.oid), c.oid)
WHERE n.nspname = current_schema() AND c.relkind IN ('r', 'p')
ORDER BY r.relname, c.relname
