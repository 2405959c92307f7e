-- Purpose:   whether the walk has passed the last row of every large table.
-- Arguments: none.
-- Returns:   one row.
-- Invariant: writes nothing.
SELECT upto >= coalesce((SELECT max(seq) FROM jobs), 0) AND upto >= coalesce((SELECT max(rowid) FROM spend), 0)
       AND upto >= coalesce((SELECT max(rowid) FROM charges), 0) AND upto >= coalesce((SELECT max(rowid) FROM savings), 0)
       AND upto >= coalesce((SELECT max(seq) FROM webhook_deliveries), 0)
FROM erasure_walk;
