-- Purpose:   orders a run now.
-- Arguments: none.
-- Returns:   the order's number.
-- Invariant: an order that comes while somebody is at it is followed by another run.
UPDATE retention_turn SET orders = orders + 1 RETURNING orders
