-- Purpose:   dead letters by cause, most first.
-- Arguments: 1 queue or NULL, 2 limit.
-- Returns:   signature, class, count, first and last finished_at, cost_nanousd.
-- Invariant: cost depends on the number of causes, not of letters: sums, and the ends of each cause's part of the index.
--            The tail is read along its key (`id > 0`, which holds for all): a million lines that were folded a moment ago
--            are a few pages of it, and 100 MB of the table.
WITH lines AS (
    SELECT signature, class, queue, letters, cost_nanousd FROM dead_causes WHERE $1::text IS NULL OR queue = $1
    UNION ALL
    SELECT signature, class, queue, letters, cost_nanousd FROM dead_tail
    WHERE id > 0 AND ($1::text IS NULL OR queue = $1)
), sums AS (
    SELECT signature, class, queue, sum(letters) AS letters, sum(cost_nanousd) AS cost_nanousd
    FROM lines
    GROUP BY signature, class, queue
    HAVING sum(letters) > 0
), causes AS (
    SELECT signature, class, sum(letters)::bigint AS letters, sum(cost_nanousd)::bigint AS cost_nanousd,
           array_agg(queue) AS queues
    FROM sums
    GROUP BY signature, class
    ORDER BY sum(letters) DESC, signature, class
    LIMIT $2
)
SELECT c.signature, c.class, c.letters, seen.first_at, seen.last_at, c.cost_nanousd
FROM causes c
CROSS JOIN LATERAL (
    SELECT min(ends.first_at) AS first_at, max(ends.last_at) AS last_at
    FROM (
        SELECT (SELECT j.finished_at FROM jobs j
                WHERE j.standing = 2 AND j.error_signature = c.signature AND j.error_class = c.class AND j.queue = q.queue
                ORDER BY j.finished_at LIMIT 1) AS first_at,
               (SELECT j.finished_at FROM jobs j
                WHERE j.standing = 2 AND j.error_signature = c.signature AND j.error_class = c.class AND j.queue = q.queue
                ORDER BY j.finished_at DESC LIMIT 1) AS last_at
        FROM unnest(c.queues) AS q (queue)
    ) AS ends
) AS seen
WHERE seen.first_at IS NOT NULL
ORDER BY c.letters DESC, c.signature, c.class
