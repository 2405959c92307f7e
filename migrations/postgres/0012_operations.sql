-- Operations on many jobs, and numbers of dead letters by cause that do not count them row by row.
--
-- An operation is a row that a scheduler walks: what was asked for, how far it is, what came of it. Its effects, its
-- place and its counts are written by one transaction, so whoever walks it may die at any statement.

CREATE TABLE operations (
    id               uuid    NOT NULL PRIMARY KEY,
    action           text    NOT NULL COLLATE "C"
                     CHECK (action IN ('redrive', 'archive', 'cancel', 'delete', 'drain', 'reclaim')),
    -- Where a drain puts the letters.
    goal             text    COLLATE "C" CHECK (goal IN ('redrive', 'archive', 'delete')),
    -- The only queue that the filter means, or '' for several.
    queue            text    NOT NULL COLLATE "C",
    dry_run          boolean NOT NULL,
    -- With moments where it said ages.
    filter           text    NOT NULL COLLATE "C",
    rate_per_s       integer NOT NULL CHECK (rate_per_s >= 1),
    max_jobs         bigint  CHECK (max_jobs >= 1),
    max_cost_nanousd bigint  CHECK (max_cost_nanousd >= 0),
    -- Reclaims also what living workers hold.
    force            boolean NOT NULL,
    reason           text    COLLATE "C",
    -- The public part of the key that asked.
    asked_by         text    NOT NULL COLLATE "C",
    state            text    NOT NULL COLLATE "C" DEFAULT 'running'
                     CHECK (state IN ('running', 'done', 'aborted', 'capped', 'failed')),
    -- Who walks it; whoever does raises `beat` with every step, and only at the beat that it has seen.
    owner            uuid,
    beat             bigint  NOT NULL DEFAULT 0 CHECK (beat >= 0),
    -- Jobs from the newest down to this one are dealt with.
    behind           uuid,
    matched          bigint  NOT NULL DEFAULT 0 CHECK (matched >= 0),
    done             bigint  NOT NULL DEFAULT 0 CHECK (done >= 0),
    skipped          bigint  NOT NULL DEFAULT 0 CHECK (skipped >= 0),
    failed           bigint  NOT NULL DEFAULT 0 CHECK (failed >= 0),
    -- What is expected to be spent again, and how many jobs it says nothing about.
    cost_nanousd     bigint  NOT NULL DEFAULT 0,
    unestimated      bigint  NOT NULL DEFAULT 0 CHECK (unestimated >= 0),
    error            text    COLLATE "C",
    accepted_at      bigint  NOT NULL,
    finished_at      bigint,
    CHECK ((state = 'running') = (finished_at IS NULL)),
    CHECK ((action = 'drain') = (goal IS NOT NULL))
);

-- One at a time for each action and queue; a dry run changes nothing and stands beside it.
CREATE UNIQUE INDEX operations_running ON operations (action, queue, dry_run) WHERE state = 'running';
CREATE INDEX operations_ended ON operations (finished_at) WHERE finished_at IS NOT NULL;

-- Dead letters by cause, queue and tenant. Who makes, changes or takes away a dead letter leaves a line in `dead_tail`, as part of
-- the same statement; the scheduler moves lines from there to `dead_causes`. Whoever asks reads both.
CREATE TABLE dead_causes (
    signature    text   NOT NULL COLLATE "C",
    class        text   NOT NULL COLLATE "C",
    queue        text   NOT NULL COLLATE "C",
    tenant       text   NOT NULL COLLATE "C",
    letters      bigint NOT NULL,
    cost_nanousd bigint NOT NULL,
    PRIMARY KEY (signature, class, queue, tenant)
)
WITH (fillfactor = 70);

CREATE TABLE dead_tail (
    LIKE dead_causes,
    id bigint NOT NULL GENERATED ALWAYS AS IDENTITY PRIMARY KEY
)
WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_insert_scale_factor = 0.1,
      autovacuum_vacuum_cost_delay = 0, vacuum_truncate = FALSE);

INSERT INTO dead_causes
SELECT error_signature, error_class, queue, tenant, count(*), sum(cost_nanousd)
FROM jobs
WHERE standing = 2
GROUP BY 1, 2, 3, 4;

CREATE FUNCTION note_dead() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP <> 'INSERT' AND OLD.standing = 2 THEN
        INSERT INTO dead_tail (signature, class, queue, tenant, letters, cost_nanousd)
        VALUES (OLD.error_signature, OLD.error_class, OLD.queue, OLD.tenant, -1, -OLD.cost_nanousd);
    END IF;
    IF TG_OP <> 'DELETE' AND NEW.standing = 2 THEN
        INSERT INTO dead_tail (signature, class, queue, tenant, letters, cost_nanousd)
        VALUES (NEW.error_signature, NEW.error_class, NEW.queue, NEW.tenant, 1, NEW.cost_nanousd);
    END IF;
    RETURN NULL;
END $$;

-- The conditions are looked at in place, so that jobs which live and succeed pay next to nothing.
CREATE TRIGGER dead_letter_made AFTER INSERT ON jobs
FOR EACH ROW WHEN (NEW.standing = 2) EXECUTE FUNCTION note_dead();
CREATE TRIGGER dead_letter_changed AFTER UPDATE ON jobs
FOR EACH ROW WHEN (OLD.standing = 2 OR NEW.standing = 2) EXECUTE FUNCTION note_dead();
CREATE TRIGGER dead_letter_gone AFTER DELETE ON jobs
FOR EACH ROW WHEN (OLD.standing = 2) EXECUTE FUNCTION note_dead();

-- The first and the last of each cause are at the ends of its part of this index.
DROP INDEX jobs_dead_cause;
CREATE INDEX jobs_dead_cause ON jobs (error_signature, error_class, queue, finished_at) WHERE standing = 2;
-- Likewise within a tenant.
DROP INDEX jobs_dead_tenant;
CREATE INDEX jobs_dead_tenant ON jobs (tenant, error_signature, error_class, queue, finished_at)
    INCLUDE (cost_nanousd, key_id) WHERE standing = 2;
-- Lists of one cause.
CREATE INDEX jobs_dead_of_cause ON jobs (error_signature, id) WHERE standing = 2;
