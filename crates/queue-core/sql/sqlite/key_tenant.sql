-- Purpose:   whose an API key is.
-- Arguments: 1 id.
-- Returns:   tenant.
-- Invariant: writes nothing.
SELECT tenant FROM api_keys WHERE id = ?1;
