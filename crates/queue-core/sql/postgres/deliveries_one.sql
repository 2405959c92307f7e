-- Purpose:   a delivery by its id, newest first.
-- Arguments: 1 place that it is before, 2 rows at most, 3 id.
-- Returns:   the columns of delivery_rows.
-- Invariant: writes nothing.
SELECT * FROM delivery_rows WHERE id = $3 AND seq < $1 ORDER BY seq DESC LIMIT $2
