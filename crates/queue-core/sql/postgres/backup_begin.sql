-- Purpose:   begins the transaction of a backup: one snapshot, however long it takes, and texts that do not depend on the server's settings.
-- Arguments: none; a script of several statements.
-- Returns:   nothing.
-- Invariant: writes nothing; one backend, so that a backup leaves processors to jobs.
SET statement_timeout = 0;
SET idle_in_transaction_session_timeout = 0;
SET max_parallel_workers_per_gather = 0;
SET bytea_output = 'hex';
SET TimeZone = 'UTC';
SET DateStyle = 'ISO';
SET extra_float_digits = 1;
BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;
-- Before the snapshot, with their partitions: no day goes while it is counted.
LOCK TABLE settled_jobs, payloads, attempts, memos IN ACCESS SHARE MODE;
