-- Purpose:   a page of a batch's jobs, newest first, by their own index.
--            `list_filter.sql` is the rest of the statement.
-- Arguments: see list_filter.sql.
-- Returns:   the columns of job_rows.
-- Invariant: visits jobs of the batch only.
SELECT * FROM job_rows WHERE batch_id = $10
  AND id >= coalesce($17::uuid, '00000000-0000-0000-0000-000000000000')
