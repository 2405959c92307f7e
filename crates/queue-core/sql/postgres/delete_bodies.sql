-- Purpose:   takes away what was kept of jobs beside their rows.
-- Arguments: 1 ids.
-- Returns:   nothing.
-- Invariant: follows `delete_dead` and `delete_settled` in their transaction, for the jobs that these took.
WITH payloads_gone AS (
    DELETE FROM payloads WHERE id = ANY ($1::uuid[])
), attempts_gone AS (
    DELETE FROM attempts WHERE job_id = ANY ($1::uuid[])
)
DELETE FROM memos WHERE job_id = ANY ($1::uuid[])
