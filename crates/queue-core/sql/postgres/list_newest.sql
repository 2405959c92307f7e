-- Purpose:   a page of jobs, newest first, where no index narrows it: walks the ids backwards until the page is full.
--            `list_filter.sql` is the rest of the statement.
-- Arguments: see list_filter.sql.
-- Returns:   the columns of job_rows.
-- Invariant: an id is unique, so a page continues exactly behind the one before it.
SELECT * FROM job_rows WHERE id >= coalesce($17::uuid, '00000000-0000-0000-0000-000000000000')
