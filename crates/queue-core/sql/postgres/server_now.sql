-- Purpose:   the server's clock.
-- Arguments: none.
-- Returns:   milliseconds since 1970.
-- Invariant: writes nothing.
SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint
