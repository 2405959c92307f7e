-- Purpose:   deletes deliveries that ended long ago, with their attempts.
-- Arguments: 1 moment before which they ended, 2 rows at most.
-- Returns:   how many.
-- Invariant: `due_at` of what has ended is when it did. What is still to be delivered stays.
WITH old AS (
    DELETE FROM webhook_deliveries
    WHERE seq = ANY (ARRAY(
        SELECT seq FROM webhook_deliveries WHERE state > 0 AND due_at < $1::bigint ORDER BY due_at LIMIT $2::bigint
    ))
    RETURNING seq
), gone AS (
    DELETE FROM webhook_attempts a USING old WHERE a.delivery = ANY (ARRAY[old.seq])
)
SELECT count(*) FROM old
