-- Purpose:   moves lines from `dead_tail` into the sums of their causes.
-- Arguments: 1 most lines.
-- Returns:   how many lines were moved.
-- Invariant: as `costs_fold`: a line is deleted by the statement that adds it, whatever ends this process; of several at
--            once one works.
WITH taken AS (
    DELETE FROM dead_tail
    WHERE id = ANY (ARRAY(
        SELECT id FROM dead_tail ORDER BY id
        LIMIT CASE WHEN pg_try_advisory_xact_lock(x'4c53484f'::integer, 5) THEN $1::bigint ELSE 0 END
        FOR UPDATE SKIP LOCKED
    ))
    RETURNING *
), folded AS (
    INSERT INTO dead_causes AS d (signature, class, queue, tenant, letters, cost_nanousd)
    SELECT signature, class, queue, tenant, sum(letters), sum(cost_nanousd)
    FROM taken
    GROUP BY signature, class, queue, tenant
    ORDER BY signature, class, queue, tenant
    ON CONFLICT (signature, class, queue, tenant) DO UPDATE
    SET letters = d.letters + excluded.letters, cost_nanousd = d.cost_nanousd + excluded.cost_nanousd
)
SELECT count(*) FROM taken
