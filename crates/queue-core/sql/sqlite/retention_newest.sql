-- Purpose:   when something happened to the newest job.
-- Arguments: none.
-- Returns:   when it was accepted, or ended; no row where there is no job.
-- Invariant: writes nothing.
SELECT max(accepted_at, coalesce(finished_at, accepted_at)) FROM jobs ORDER BY id DESC LIMIT 1;
