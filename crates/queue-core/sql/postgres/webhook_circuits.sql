-- Purpose:   the circuits that were told of as open.
-- Arguments: none.
-- Returns:   circuit.
-- Invariant: writes nothing.
SELECT circuit FROM webhook_circuits
