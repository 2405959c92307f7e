-- Operations on many jobs, and numbers of dead letters by cause that do not count them row by row.
--
-- An operation is a row that a scheduler walks: what was asked for, how far it is, what came of it. Its effects, its
-- place and its counts are written by one transaction, so whoever walks it may die at any statement.

CREATE TABLE operations (
    id               BLOB    NOT NULL PRIMARY KEY CHECK (length(id) = 16),
    action           TEXT    NOT NULL
                     CHECK (action IN ('redrive', 'archive', 'cancel', 'delete', 'drain', 'reclaim')),
    -- Where a drain puts the letters.
    goal             TEXT    CHECK (goal IN ('redrive', 'archive', 'delete')),
    -- The only queue that the filter means, or '' for several.
    queue            TEXT    NOT NULL,
    dry_run          INTEGER NOT NULL CHECK (dry_run IN (0, 1)),
    -- With moments where it said ages.
    filter           TEXT    NOT NULL,
    rate_per_s       INTEGER NOT NULL CHECK (rate_per_s >= 1),
    max_jobs         INTEGER CHECK (max_jobs >= 1),
    max_cost_nanousd INTEGER CHECK (max_cost_nanousd >= 0),
    -- Reclaims also what living workers hold.
    force            INTEGER NOT NULL CHECK (force IN (0, 1)),
    reason           TEXT,
    -- The public part of the key that asked.
    asked_by         TEXT    NOT NULL,
    state            TEXT    NOT NULL DEFAULT 'running'
                     CHECK (state IN ('running', 'done', 'aborted', 'capped', 'failed')),
    -- Who walks it; whoever does raises `beat` with every step, and only at the beat that it has seen.
    owner            BLOB    CHECK (length(owner) = 16),
    beat             INTEGER NOT NULL DEFAULT 0 CHECK (beat >= 0),
    -- Jobs from the newest down to this one are dealt with.
    behind           BLOB    CHECK (length(behind) = 16),
    matched          INTEGER NOT NULL DEFAULT 0 CHECK (matched >= 0),
    done             INTEGER NOT NULL DEFAULT 0 CHECK (done >= 0),
    skipped          INTEGER NOT NULL DEFAULT 0 CHECK (skipped >= 0),
    failed           INTEGER NOT NULL DEFAULT 0 CHECK (failed >= 0),
    -- What is expected to be spent again, and how many jobs it says nothing about.
    cost_nanousd     INTEGER NOT NULL DEFAULT 0,
    unestimated      INTEGER NOT NULL DEFAULT 0 CHECK (unestimated >= 0),
    error            TEXT,
    accepted_at      INTEGER NOT NULL,
    finished_at      INTEGER,
    CHECK ((state = 'running') = (finished_at IS NULL)),
    CHECK ((action = 'drain') = (goal IS NOT NULL))
) STRICT;

-- One at a time for each action and queue; a dry run changes nothing and stands beside it.
CREATE UNIQUE INDEX operations_running ON operations (action, queue, dry_run) WHERE state = 'running';
CREATE INDEX operations_ended ON operations (finished_at) WHERE finished_at IS NOT NULL;

-- Dead letters by cause, queue and tenant, kept by the rows' own triggers: one thread writes this file.
CREATE TABLE dead_causes (
    signature    TEXT    NOT NULL,
    class        TEXT    NOT NULL,
    queue        TEXT    NOT NULL,
    tenant       TEXT    NOT NULL,
    letters      INTEGER NOT NULL,
    cost_nanousd INTEGER NOT NULL,
    PRIMARY KEY (signature, class, queue, tenant)
) STRICT, WITHOUT ROWID;

INSERT INTO dead_causes
SELECT error_signature, error_class, queue, tenant, count(*), sum(cost_nanousd)
FROM jobs
WHERE standing = 2
GROUP BY 1, 2, 3, 4;

CREATE TRIGGER dead_letter_changed AFTER UPDATE OF standing, cost_nanousd ON jobs
WHEN old.standing = 2 OR new.standing = 2 BEGIN
    UPDATE dead_causes SET letters = letters - 1, cost_nanousd = cost_nanousd - old.cost_nanousd
    WHERE old.standing = 2 AND signature = old.error_signature AND class = old.error_class AND queue = old.queue
      AND tenant = old.tenant;
    INSERT INTO dead_causes (signature, class, queue, tenant, letters, cost_nanousd)
    SELECT new.error_signature, new.error_class, new.queue, new.tenant, 1, new.cost_nanousd WHERE new.standing = 2
    ON CONFLICT (signature, class, queue, tenant) DO UPDATE
    SET letters = letters + 1, cost_nanousd = cost_nanousd + excluded.cost_nanousd;
    DELETE FROM dead_causes
    WHERE letters <= 0 AND old.standing = 2 AND signature = old.error_signature AND class = old.error_class
      AND queue = old.queue AND tenant = old.tenant;
END;

CREATE TRIGGER dead_letter_made AFTER INSERT ON jobs WHEN new.standing = 2 BEGIN
    INSERT INTO dead_causes (signature, class, queue, tenant, letters, cost_nanousd)
    VALUES (new.error_signature, new.error_class, new.queue, new.tenant, 1, new.cost_nanousd)
    ON CONFLICT (signature, class, queue, tenant) DO UPDATE
    SET letters = letters + 1, cost_nanousd = cost_nanousd + excluded.cost_nanousd;
END;

CREATE TRIGGER dead_letter_gone AFTER DELETE ON jobs WHEN old.standing = 2 BEGIN
    UPDATE dead_causes SET letters = letters - 1, cost_nanousd = cost_nanousd - old.cost_nanousd
    WHERE signature = old.error_signature AND class = old.error_class AND queue = old.queue
      AND tenant = old.tenant;
    DELETE FROM dead_causes
    WHERE letters <= 0 AND old.standing = 2 AND signature = old.error_signature AND class = old.error_class
      AND queue = old.queue AND tenant = old.tenant;
END;

-- The first and the last of each cause are at the ends of its part of this index.
DROP INDEX jobs_dead_cause;
CREATE INDEX jobs_dead_cause ON jobs (error_signature, error_class, queue, finished_at) WHERE standing = 2;
-- Lists of one cause.
CREATE INDEX jobs_dead_of_cause ON jobs (error_signature, id) WHERE standing = 2;
