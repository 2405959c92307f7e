-- Purpose:   a job as people see it.
-- Arguments: 1 id.
-- Returns:   the columns of job_rows.
-- Invariant: writes nothing.
SELECT * FROM job_rows WHERE id = ?1;
