-- Purpose:   a page of dead letters of one queue, newest first, by their own index.
--            `list_filter.sql` is the rest of the statement.
-- Arguments: see list_filter.sql.
-- Returns:   the columns of job_rows.
-- Invariant: visits dead letters of that queue only.
SELECT * FROM job_rows WHERE standing = 2 AND queue = $2
  AND id >= coalesce($17::uuid, '00000000-0000-0000-0000-000000000000')
