-- Purpose:   the newest jobs of each of some batches, newest first.
-- Arguments: 1 batches, 2 how many of each.
-- Returns:   the place of the batch counted from 1, id, standing, accepted_at, finished_at, tags, cost_nanousd, cost_unknown.
-- Invariant: walks the end of each batch in the indexes of batches, however many jobs it has: each arm has an order and a limit of
--            its own, since a limit behind the union would sort all.
SELECT asked.place, member.*
FROM unnest($1::text[]) WITH ORDINALITY AS asked (batch, place)
CROSS JOIN LATERAL (
    SELECT id, standing, accepted_at, finished_at, tags, cost_nanousd, cost_unknown
    FROM (
        (SELECT id, standing, accepted_at, finished_at, tags, cost_nanousd, cost_unknown
         FROM jobs WHERE batch_id = asked.batch ORDER BY id DESC LIMIT $2)
        UNION ALL
        (SELECT id, standing, accepted_at, finished_at, tags, cost_nanousd, cost_unknown
         FROM settled_jobs WHERE batch_id = asked.batch ORDER BY id DESC LIMIT $2)
    ) AS ends
    ORDER BY id DESC
    LIMIT $2
) AS member
ORDER BY asked.place, member.id DESC
