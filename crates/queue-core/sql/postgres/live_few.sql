-- Purpose:   whether few enough live jobs are due in a range to sort them for a list.
-- Arguments: 1 due by or NULL, 2 due after or NULL, 3 the bound.
-- Returns:   how many there are, counted up to the bound.
-- Invariant: visits at most `bound` entries of the index of live rows.
SELECT count(*)
FROM (SELECT 1 FROM jobs
      WHERE standing = 0 AND run_at <= coalesce($1, 9223372036854775807)
        AND run_at > coalesce($2, -9223372036854775808)
      LIMIT $3) AS counted
