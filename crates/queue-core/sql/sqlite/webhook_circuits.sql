-- Purpose:   the circuits that were told of as open.
-- Arguments: none.
-- Returns:   circuit, when it was last noted so.
-- Invariant: writes nothing.
SELECT circuit, at FROM webhook_circuits;
