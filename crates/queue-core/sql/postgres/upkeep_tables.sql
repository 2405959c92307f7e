-- Purpose:   what the statistics say of each table.
-- Arguments: none.
-- Returns:   name, rows, dead, changed, bytes, vacuumed_at, analyzed_at; largest first.
-- Invariant: reads catalogue and statistics, and no table of ours. A partitioned table has no rows of its own, and autovacuum never makes its
--            statistics: it counts as changed, and its dead rows are those of its partitions.
SELECT s.relname::text, s.n_live_tup,
       CASE WHEN c.relkind = 'p' THEN 0 ELSE s.n_dead_tup END,
       CASE WHEN c.relkind = 'p' THEN 1 ELSE s.n_mod_since_analyze END,
       coalesce((SELECT sum(pg_total_relation_size(t.relid)) FROM pg_partition_tree(s.relid) t), 0)::bigint,
       (extract(epoch FROM greatest(s.last_vacuum, s.last_autovacuum)) * 1000)::bigint,
       (extract(epoch FROM greatest(s.last_analyze, s.last_autoanalyze)) * 1000)::bigint
FROM pg_stat_user_tables s JOIN pg_class c ON c.oid = s.relid
WHERE s.schemaname = current_schema() AND c.relkind IN ('r', 'p')
ORDER BY 5 DESC
