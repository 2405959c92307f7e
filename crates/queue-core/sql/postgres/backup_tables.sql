-- Purpose:   how to count every table of the journal, and sum its rows.
-- Arguments: 1 columns of meta that are left out.
-- Returns:   name, statement.
-- Invariant: writes nothing; a partitioned table counts as one.
SELECT c.relname::text,
       CASE WHEN c.relname = 'meta'
            THEN format('SELECT count(*), coalesce(sum(hashtextextended((to_jsonb(its_row) - %L::text[])::text, 0)), 0)::text FROM %I.%I AS its_row',
                        $1 || ARRAY['restored_at'], n.nspname, c.relname)
            ELSE format('SELECT count(*), coalesce(sum(hashtextextended(its_row::text, 0)), 0)::text FROM %I.%I AS its_row',
                        n.nspname, c.relname) END
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = current_schema() AND c.relkind IN ('r', 'p') AND NOT c.relispartition
ORDER BY c.relname
