-- Purpose:   the deliveries of an endpoint, newest first.
-- Arguments: 1 place that they are before, 2 rows at most, 3 endpoint.
-- Returns:   the columns of delivery_rows.
-- Invariant: writes nothing.
SELECT * FROM delivery_rows WHERE endpoint_id = $3 AND seq < $1 ORDER BY seq DESC LIMIT $2
