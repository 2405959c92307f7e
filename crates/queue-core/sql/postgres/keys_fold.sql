-- Purpose:   moves lines from `key_tail` into the sums of their days, as `costs_fold` does.
-- Arguments: 1 most lines.
-- Returns:   how many lines were moved.
-- Invariant: one statement deletes a line and adds it, so each is added once, whatever ends this process. Of several at once
--            one works and the others find nothing.
WITH taken AS (
    DELETE FROM key_tail
    WHERE id = ANY (ARRAY(
        SELECT id FROM key_tail ORDER BY id
        LIMIT CASE WHEN pg_try_advisory_xact_lock(x'4c53484f'::integer, 4) THEN $1::bigint ELSE 0 END
        FOR UPDATE SKIP LOCKED
    ))
    RETURNING *
), folded AS (
    INSERT INTO key_days AS d (day, key_id, tenant, spend_nanousd, tokens)
    SELECT day, key_id, tenant, sum(spend_nanousd), sum(tokens) FROM taken GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
    ON CONFLICT (day, key_id, tenant) DO UPDATE
    SET spend_nanousd = d.spend_nanousd + excluded.spend_nanousd, tokens = d.tokens + excluded.tokens
)
SELECT count(*) FROM taken
