-- Purpose:   how many results are to be looked at, and when the first one is.
-- Arguments: 1 now, 2 count no further.
-- Returns:   how many, the first moment of all.
-- Invariant: writes nothing.
SELECT (SELECT count(*) FROM (SELECT 1 FROM result_ttls WHERE look_at <= $1 ORDER BY look_at LIMIT $2) AS due),
       (SELECT min(look_at) FROM result_ttls)
