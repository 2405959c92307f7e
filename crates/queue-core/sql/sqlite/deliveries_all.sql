-- Purpose:   all deliveries, newest first.
-- Arguments: 1 place that they are before, 2 rows at most.
-- Returns:   the columns of delivery_rows.
-- Invariant: writes nothing.
SELECT * FROM delivery_rows WHERE seq < ?1 ORDER BY seq DESC LIMIT ?2;
