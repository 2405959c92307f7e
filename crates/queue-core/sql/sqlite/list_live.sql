-- Purpose:   a page of live jobs, newest first, where few enough are live to sort them.
--            `list_filter.sql` is the rest of the statement.
-- Arguments: see list_filter.sql.
-- Returns:   the columns of job_rows.
-- Invariant: `live_few.sql` has found few rows in the range; the range of ids is open, so that no index but that of
--            due times serves it.
SELECT * FROM job_rows
WHERE ?17 IS NULL
AND standing = 0 AND run_at BETWEEN coalesce(?6 + 1, -9223372036854775808) AND coalesce(?5, 9223372036854775807)
