-- Purpose:   holds the rows of jobs that have ended for good, in the order of their ids: their late calls are still written.
-- Arguments: 1 ids.
-- Returns:   nothing that matters.
-- Invariant: taken after `jobs_lock`, and only where that did not find all of them.
SELECT count(*) FROM (SELECT 1 FROM settled_jobs WHERE id = ANY ($1::uuid[]) ORDER BY id FOR UPDATE) AS held
