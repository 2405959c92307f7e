-- Purpose:   what the server says of itself, for whoever asks whether an installation is well.
-- Arguments: none.
-- Returns:   its version; whether its disk keeps what it writes; its clock in ms.
-- Invariant: writes nothing.
SELECT current_setting('server_version'),
       current_setting('fsync')::boolean AND current_setting('full_page_writes')::boolean,
       (extract(epoch FROM clock_timestamp()) * 1000)::bigint
