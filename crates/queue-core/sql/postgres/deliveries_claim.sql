-- Purpose:   takes deliveries that are due, a few of each lane.
-- Arguments: 1 lane behind which to begin, 2 lanes that are left alone, 3 lanes at most, 4 now, 5 of one lane at most, 6 in
--            all at most, 7 when others may take them, 8 who takes them.
-- Returns:   the columns of delivery_rows.
-- Invariant: walks from lane to lane along the index, so that what waits in one costs the others nothing; lanes of which
--            nothing is due are not among those at most. Rows that somebody
--            else takes at this moment are passed over.
WITH RECURSIVE lanes AS (
    (SELECT lane FROM webhook_deliveries WHERE state = 0 AND lane > $1::text ORDER BY lane LIMIT 1)
    UNION ALL
    SELECT (SELECT d.lane FROM webhook_deliveries d WHERE d.state = 0 AND d.lane > l.lane ORDER BY d.lane LIMIT 1)
    FROM lanes l
    WHERE l.lane IS NOT NULL
), few AS (
    SELECT lane FROM lanes
    WHERE lane IS NOT NULL AND lane <> ALL ($2::text[])
      AND (SELECT min(f.due_at) FROM webhook_deliveries f WHERE f.state = 0 AND f.lane = lanes.lane) <= $4::bigint
    LIMIT $3::bigint
), due AS (
    SELECT d.seq
    FROM few CROSS JOIN LATERAL (
        SELECT w.seq FROM webhook_deliveries w
        WHERE w.state = 0 AND w.lane = few.lane AND w.due_at <= $4::bigint
        ORDER BY w.due_at, w.seq
        LIMIT $5::bigint
        FOR UPDATE SKIP LOCKED
    ) d
    LIMIT $6::bigint
), taken AS (
    UPDATE webhook_deliveries w SET due_at = $7::bigint, owner = $8::uuid
    FROM due
    WHERE w.seq = ANY (ARRAY[due.seq])
    RETURNING w.*
)
SELECT t.seq, t.id, t.endpoint_id, t.lane, t.tenant, t.event, t.job_id, t.at, coalesce(t.url, e.url),
       coalesce(e.enabled, t.endpoint_id IS NULL), t.body, t.state, t.attempts, t.tries, t.due_at, t.last
FROM taken t LEFT JOIN webhook_endpoints e ON e.id = t.endpoint_id
