-- Purpose:   how many API keys of one role there are.
-- Arguments: ?1 the role's word.
-- Returns:   the number.
-- Invariant: writes nothing.
SELECT count(*) FROM api_keys WHERE role = ?1;
