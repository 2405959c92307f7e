-- Purpose:   what every connection of the journal works with.
-- Arguments: 1 statement_timeout, 2 lock_timeout, both in milliseconds.
-- Returns:   one row that says nothing.
-- Invariant: commits are on disk before they are answered, whatever the server's default is; statements see what was
--            committed before each of them. Every question of the journal is a walk along an index, so plans that read
--            or hash whole tables are off, and a page of an index costs as little as it does in memory: a plan that
--            was made while a table was small must not walk all of it later. For the same reason statements that look
--            jobs up by id say `standing < 1` for live ones: `= 0` would offer the index of all live jobs.
SELECT set_config('statement_timeout', $1, FALSE), set_config('lock_timeout', $2, FALSE),
       set_config('idle_in_transaction_session_timeout', $1, FALSE),
       set_config('synchronous_commit', 'on', FALSE), set_config('default_transaction_isolation', 'read committed', FALSE),
       set_config('enable_seqscan', 'off', FALSE), set_config('enable_hashjoin', 'off', FALSE),
       set_config('enable_mergejoin', 'off', FALSE), set_config('random_page_cost', '0.1', FALSE),
       set_config('jit', 'off', FALSE)
