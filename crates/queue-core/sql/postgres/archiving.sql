-- Purpose:   whether the server archives its log, and whether that works.
-- Arguments: none.
-- Returns:   whether it is on; when it last worked and last failed, in ms.
-- Invariant: writes nothing.
SELECT current_setting('archive_mode') <> 'off', (extract(epoch FROM last_archived_time) * 1000)::bigint,
       (extract(epoch FROM last_failed_time) * 1000)::bigint
FROM pg_stat_archiver
