-- Tenants that were erased. The list is kept for ever: it says who is refused, and which rows are taken away again should a
-- restore bring them back.
CREATE TABLE erasures (
    tenant      TEXT    NOT NULL PRIMARY KEY,
    -- What stands for the name in sums of money and in the audit log. Made by chance: nobody can guess one from the other.
    pseudonym   TEXT    NOT NULL UNIQUE,
    accepted_at INTEGER NOT NULL,
    -- Rows that were taken away, and what was there when the present walk passed.
    erased      INTEGER NOT NULL DEFAULT 0,
    found       INTEGER NOT NULL DEFAULT 0,
    -- When a whole walk had found nothing; the last time, and how often in a row.
    finished_at INTEGER,
    checked_at  INTEGER,
    looks       INTEGER NOT NULL DEFAULT 0 CHECK (looks >= 0),
    -- When it is to be walked for; NULL: not again.
    due_at      INTEGER
) STRICT, WITHOUT ROWID;

-- How far the walk over all tables is, which takes away the rows of all these tenants. Whoever makes a step raises `beat`, and
-- only at the beat that it has seen.
CREATE TABLE erasure_walk (
    one      INTEGER PRIMARY KEY CHECK (one = 1),
    beat     INTEGER NOT NULL DEFAULT 0,
    -- NULL: nobody walks.
    began_at INTEGER,
    -- Rows of the large tables with a number up to `passed` were looked at; this step looks at those up to `upto`.
    passed   INTEGER NOT NULL DEFAULT 0,
    upto     INTEGER NOT NULL DEFAULT 0
) STRICT;
INSERT INTO erasure_walk (one) VALUES (1);
