-- Purpose:   a page of live jobs, newest first, where few enough are live to sort them.
--            `list_filter.sql` is the rest of the statement.
-- Arguments: see list_filter.sql.
-- Returns:   the columns of job_rows.
-- Invariant: `live_few.sql` has found few rows in the range.
SELECT * FROM job_rows
WHERE $17::uuid IS NULL AND standing = 0 AND run_at <= coalesce($5::bigint, 9223372036854775807)
  AND run_at > coalesce($6::bigint, -9223372036854775808)
