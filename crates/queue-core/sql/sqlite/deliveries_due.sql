-- Purpose:   deliveries that are due, a few of each lane.
-- Arguments: 1 lane behind which to begin, 2 lanes that are left alone as a JSON array, 3 lanes at most, 4 now, 5 of one lane
--            at most, 6 in all at most.
-- Returns:   seq.
-- Invariant: walks from lane to lane along the index, so that what waits in one costs the others nothing.
WITH RECURSIVE lanes (lane) AS (
    SELECT * FROM (SELECT lane FROM webhook_deliveries WHERE state = 0 AND lane > ?1 ORDER BY lane LIMIT 1)
    UNION ALL
    SELECT (SELECT d.lane FROM webhook_deliveries d WHERE d.state = 0 AND d.lane > l.lane ORDER BY d.lane LIMIT 1)
    FROM lanes l
    WHERE l.lane IS NOT NULL
), few AS (
    SELECT lane FROM lanes
    WHERE lane IS NOT NULL AND lane NOT IN (SELECT value FROM json_each(?2))
      AND (SELECT min(f.due_at) FROM webhook_deliveries f WHERE f.state = 0 AND f.lane = lanes.lane) <= ?4
    LIMIT ?3
)
SELECT d.seq
FROM few JOIN webhook_deliveries d ON d.seq IN (
    SELECT w.seq FROM webhook_deliveries w
    WHERE w.state = 0 AND w.lane = few.lane AND w.due_at <= ?4
    ORDER BY w.due_at, w.seq
    LIMIT ?5
)
LIMIT ?6;
