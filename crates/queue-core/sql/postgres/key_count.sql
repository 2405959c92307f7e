-- Purpose:   how many API keys there are.
-- Arguments: none.
-- Returns:   the number.
-- Invariant: writes nothing.
SELECT count(*) FROM api_keys
