-- Purpose:   what time it is.
-- Arguments: none.
-- Returns:   the server's clock in ms.
-- Invariant: writes nothing.
SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint
