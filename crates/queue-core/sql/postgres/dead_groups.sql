-- Purpose:   dead letters by cause, most first.
-- Arguments: 1 queue or NULL, 2 limit.
-- Returns:   signature, class, count, first and last finished_at, cost_nanousd.
-- Invariant: answered from the index of dead letters alone.
SELECT error_signature, error_class, count(*), min(finished_at), max(finished_at), sum(cost_nanousd)::bigint
FROM jobs
WHERE standing = 2 AND ($1::text IS NULL OR queue = $1)
GROUP BY error_signature, error_class
ORDER BY count(*) DESC, error_signature, error_class
LIMIT $2
