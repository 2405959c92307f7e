-- Purpose:   lives of the journal and the dispatcher, and how many jobs may still run.
-- Arguments: none.
-- Returns:   incarnation, generation, live jobs.
-- Invariant: writes nothing; the columns are those of the oldest schema that a backup may be of.
SELECT incarnation, generation, (SELECT count(*) FROM jobs WHERE standing = 0) FROM meta
