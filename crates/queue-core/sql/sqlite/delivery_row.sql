-- Purpose:   a delivery.
-- Arguments: 1 seq.
-- Returns:   the columns of delivery_rows.
-- Invariant: writes nothing.
SELECT * FROM delivery_rows WHERE seq = ?1;
