-- Purpose:   whether a transaction has been open for long: who builds an index beside its users waits for all that are older.
-- Arguments: none.
-- Returns:   a row if there is one.
-- Invariant: writes nothing. Sessions of other roles show their times only to members of pg_read_all_stats.
SELECT 1 FROM pg_stat_activity a
WHERE a.datname = current_database() AND a.pid <> pg_backend_pid() AND a.xact_start < now() - interval '1 minute'
LIMIT 1
