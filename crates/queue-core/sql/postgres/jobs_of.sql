-- Purpose:   jobs as people see them.
-- Arguments: 1 ids.
-- Returns:   the columns of job_rows, then the place of the id counted from 1.
-- Invariant: writes nothing.
SELECT r.*, asked.place FROM unnest($1::uuid[]) WITH ORDINALITY AS asked (id, place) JOIN job_rows r ON r.id = asked.id
