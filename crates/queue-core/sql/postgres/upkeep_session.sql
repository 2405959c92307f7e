-- Purpose:   what the connection of a chore works with.
-- Arguments: 1 statement_timeout, 2 lock_timeout, both in milliseconds.
-- Returns:   one row that says nothing.
-- Invariant: a chore whose process is gone ends within seconds.
SELECT set_config('statement_timeout', $1, FALSE), set_config('lock_timeout', $2, FALSE),
       set_config('client_connection_check_interval', '2s', FALSE)
