-- Purpose:   notes an attempt of a delivery, and what follows.
-- Arguments: 1 seq, 2 owner, 3 at, 4 duration_ms, 5 status, 6 answer, 7 error, 8 whether it was tried, 9 state after it,
--            10 when it is due again, 11 message, 12 why its receiver is switched off or NULL, 13 what it came to,
--            14 since when those behind it that are given up have been due or NULL, 15 of them at most, 16 their end.
-- Returns:   1, or 0 where somebody else has claimed it since; how many are given up with it.
-- Invariant: an attempt that was made is logged, whoever has the delivery now.
WITH logged AS (
    INSERT INTO webhook_attempts (delivery, at, duration_ms, status, answer, error)
    SELECT $1::bigint, $3::bigint, $4::bigint, $5::integer, $6::text, $7::text WHERE $8::boolean
), done AS (
    UPDATE webhook_deliveries
    SET state = $9::smallint, attempts = attempts + $8::boolean::integer, tries = tries + $8::boolean::integer,
        due_at = $10::bigint, owner = NULL, body = coalesce(body, $11::text), last = $13::text
    WHERE seq = $1 AND owner = $2::uuid AND state = 0
    RETURNING endpoint_id, lane
), off AS (
    UPDATE webhook_endpoints e SET enabled = FALSE, reason = $12::text, version = version + 1
    FROM done
    WHERE $12::text IS NOT NULL AND e.id = done.endpoint_id AND e.enabled
), overdue AS (
    SELECT seq
    FROM webhook_deliveries
    WHERE lane = (SELECT lane FROM done) AND state = 0 AND due_at < $14::bigint AND seq <> $1
    ORDER BY due_at
    LIMIT $15::bigint
    FOR UPDATE SKIP LOCKED
), given_up AS (
    UPDATE webhook_deliveries d SET state = 2, due_at = $3::bigint, owner = NULL, last = $16::text
    FROM overdue WHERE d.seq = overdue.seq
    RETURNING d.seq
)
SELECT (SELECT count(*) FROM done), (SELECT count(*) FROM given_up)
