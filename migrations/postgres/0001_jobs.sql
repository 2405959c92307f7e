-- Jobs, what they carry, how their attempts ended, and the keys that keep them from being accepted twice.
--
-- `jobs` is the hot table: live jobs, and dead letters until someone redrives them. A job that succeeded or was
-- cancelled is moved to `settled_jobs` by the statement that settles it. What is written once and kept as long as its
-- job (payload, attempts, the settled row) is partitioned by the day of the job's id, which is the day of its
-- acceptance (UUIDv7): a lookup by id finds its one partition, an id is unique over all days, and old days are dropped
-- whole. Ids without a time are in the default partition. Every row names its tenant.
-- Times are milliseconds since the Unix epoch. Texts that people send are stored with NUL escaped, see `text.rs`.

CREATE TABLE jobs (
    id                 uuid     NOT NULL PRIMARY KEY,
    tenant             text     NOT NULL COLLATE "C",
    queue              text     NOT NULL COLLATE "C",
    kind               text     NOT NULL COLLATE "C" CHECK (kind IN ('llm', 'embedding', 'analysis', 'probe')),
    target             text     NOT NULL COLLATE "C",
    priority           smallint NOT NULL CHECK (priority BETWEEN 0 AND 9),
    -- 0 live, 2 dead: `Standing::code`.
    standing           smallint NOT NULL DEFAULT 0 CHECK (standing IN (0, 2)),
    epoch              bigint   NOT NULL DEFAULT 0 CHECK (epoch >= 0),
    attempts           integer  NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    max_attempts       integer  NOT NULL CHECK (max_attempts >= 1),
    recoveries         integer  NOT NULL DEFAULT 0 CHECK (recoveries >= 0),
    releases           integer  NOT NULL DEFAULT 0 CHECK (releases >= 0),
    redrives           integer  NOT NULL DEFAULT 0 CHECK (redrives >= 0),
    run_at             bigint   NOT NULL,
    start_by           bigint,
    deadline           bigint,
    timeout_ms         bigint,
    accepted_at        bigint   NOT NULL,
    finished_at        bigint,
    unique_key         text     COLLATE "C",
    operation          text     COLLATE "C",
    batch_id           text     COLLATE "C",
    -- A JSON array of text, or NULL for none.
    tags               text     COLLATE "C",
    request_id         text     COLLATE "C",
    traceparent        text     COLLATE "C",
    -- The last error as JSON, and the two parts of it that lists are narrowed by.
    error              text     COLLATE "C",
    error_class        text     COLLATE "C",
    error_signature    text     COLLATE "C",
    served_by          text     COLLATE "C",
    cancel_reason      text     COLLATE "C",
    -- Running sums over the job's rows in `spend`.
    calls              bigint   NOT NULL DEFAULT 0 CHECK (calls >= 0),
    tokens_in          bigint   NOT NULL DEFAULT 0,
    tokens_out         bigint   NOT NULL DEFAULT 0,
    tokens_cached      bigint   NOT NULL DEFAULT 0,
    tokens_cache_write bigint   NOT NULL DEFAULT 0,
    tokens_reasoning   bigint   NOT NULL DEFAULT 0,
    cost_nanousd       bigint   NOT NULL DEFAULT 0,
    -- True once a billed call had no price: the sum above is then a lower bound.
    cost_unknown       boolean  NOT NULL DEFAULT FALSE,
    -- Exactly the final jobs have an end, and no dead letter is without a cause.
    CHECK ((standing = 0) = (finished_at IS NULL)),
    CHECK (standing <> 2 OR error IS NOT NULL),
    CHECK ((error IS NULL) = (error_class IS NULL) AND (error IS NULL) = (error_signature IS NULL))
)
-- Room on each page for the new version of a row that a retry or a payment changes. Rows live for minutes, so what
-- they leave behind is cleared early, without pauses, and the file is never cut: that locks everybody out of a table
-- which is often empty for a moment, for pages that the next jobs need again.
WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 5000,
      autovacuum_vacuum_insert_scale_factor = 0.1, autovacuum_analyze_scale_factor = 0.05,
      autovacuum_vacuum_cost_delay = 0, vacuum_truncate = FALSE);

-- What the dispatcher is rebuilt from, in the order in which it becomes due.
CREATE INDEX jobs_live ON jobs (run_at, id) WHERE standing = 0;
-- Dead letters, for lists and by cause.
CREATE INDEX jobs_dead ON jobs (id) WHERE standing = 2;
CREATE INDEX jobs_dead_cause ON jobs (error_signature, error_class, queue) INCLUDE (finished_at, cost_nanousd)
    WHERE standing = 2;
-- Counts and lists of a batch.
CREATE INDEX jobs_batch ON jobs (batch_id, id) INCLUDE (standing) WHERE batch_id IS NOT NULL;

-- The columns of `jobs` in their order, then the result and the rest of the attempt that gave it: the move copies a row
-- as it is, and a success writes one row and not two.
CREATE TABLE settled_jobs (
    LIKE jobs INCLUDING DEFAULTS,
    result             bytea,
    session            uuid,
    began_at           bigint,
    PRIMARY KEY (id),
    -- 1 succeeded, 3 cancelled.
    CONSTRAINT settled_jobs_standing CHECK (standing IN (1, 3)),
    CONSTRAINT settled_jobs_end CHECK (finished_at IS NOT NULL),
    CONSTRAINT settled_jobs_result CHECK ((standing = 1) = (result IS NOT NULL)),
    CONSTRAINT settled_jobs_attempt CHECK ((standing = 1) = (session IS NOT NULL)),
    CONSTRAINT settled_jobs_error
        CHECK ((error IS NULL) = (error_class IS NULL) AND (error IS NULL) = (error_signature IS NULL))
) PARTITION BY RANGE (id);

CREATE INDEX settled_jobs_batch ON settled_jobs (batch_id, id) INCLUDE (standing) WHERE batch_id IS NOT NULL;

-- One row for every job that was ever accepted and not pruned: its key is what makes an id unique.
CREATE TABLE payloads (
    id     uuid  NOT NULL PRIMARY KEY,
    tenant text  NOT NULL COLLATE "C",
    body   bytea NOT NULL
) PARTITION BY RANGE (id);

-- One row for each attempt that ended without success (that one is in `settled_jobs`): an epoch is settled or recovered
-- at most once.
CREATE TABLE attempts (
    job_id      uuid    NOT NULL,
    tenant      text    NOT NULL COLLATE "C",
    epoch       bigint  NOT NULL,
    number      integer NOT NULL CHECK (number >= 1),
    outcome     text    NOT NULL COLLATE "C"
                CHECK (outcome IN ('retry', 'dead', 'release', 'cancel', 'lost')),
    session     uuid    NOT NULL,
    started_at  bigint,
    finished_at bigint  NOT NULL,
    error       text    COLLATE "C",
    PRIMARY KEY (job_id, epoch)
) PARTITION BY RANGE (job_id);

CREATE TABLE settled_jobs_default PARTITION OF settled_jobs DEFAULT;
CREATE TABLE payloads_default PARTITION OF payloads DEFAULT;
CREATE TABLE attempts_default PARTITION OF attempts DEFAULT;

-- Which body owns an idempotency key: two bodies that come at once must not share it, also where no item of one is an
-- item of the other. A row is written with the first accepted item of its body.
CREATE TABLE idempotency_bodies (
    tenant      text    NOT NULL COLLATE "C",
    key         text    NOT NULL COLLATE "C",
    fingerprint bytea   NOT NULL CHECK (octet_length(fingerprint) = 32),
    PRIMARY KEY (tenant, key)
);

-- The accepted items of those bodies, which may be repeated.
CREATE TABLE idempotency_keys (
    tenant      text    NOT NULL COLLATE "C",
    key         text    NOT NULL COLLATE "C",
    item        bigint  NOT NULL,
    job_id      uuid    NOT NULL,
    created_at  bigint  NOT NULL,
    PRIMARY KEY (tenant, key, item)
);

-- Which live job holds a unique key; gone with the write that ends the job.
CREATE TABLE unique_keys (
    tenant text NOT NULL COLLATE "C",
    key    text NOT NULL COLLATE "C",
    job_id uuid NOT NULL,
    PRIMARY KEY (tenant, key)
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 5000, vacuum_truncate = FALSE);

-- A job as `journal::postgres::rows::job` reads it: the order of these columns is its contract.
CREATE VIEW job_rows AS
SELECT id, tenant, queue, kind, target, priority, standing, epoch, attempts, max_attempts, recoveries, releases,
       redrives, run_at, start_by, deadline, timeout_ms, accepted_at, finished_at, unique_key, operation, batch_id,
       tags, request_id, traceparent, error, served_by, tokens_in, tokens_out, tokens_cached, tokens_cache_write,
       tokens_reasoning, cost_nanousd, cost_unknown, NULL::text AS cancel_reason, error_class, error_signature
FROM jobs
UNION ALL
SELECT id, tenant, queue, kind, target, priority, standing, epoch, attempts, max_attempts, recoveries, releases,
       redrives, run_at, start_by, deadline, timeout_ms, accepted_at, finished_at, unique_key, operation, batch_id,
       tags, request_id, traceparent, error, served_by, tokens_in, tokens_out, tokens_cached, tokens_cache_write,
       tokens_reasoning, cost_nanousd, cost_unknown, cancel_reason, error_class, error_signature
FROM settled_jobs;

-- The smallest UUIDv7 of a UTC day.
CREATE FUNCTION first_id_of(day date) RETURNS uuid LANGUAGE sql IMMUTABLE STRICT AS $$
    SELECT rpad(lpad(to_hex((day - DATE '1970-01-01')::bigint * 86400000), 12, '0'), 32, '0')::uuid
$$;

-- Makes the partitions of `days` days from the day of `now_ms` on, where they are missing, and returns how many it
-- made. A day whose rows already are in the default partition stays there, with a warning. Runs with the rights of the
-- tables' owner, so that the service needs none on the schema.
CREATE FUNCTION create_partitions(now_ms bigint, days integer) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    today date := DATE '1970-01-01' + (now_ms / 86400000)::integer;
    parent text;
    partition text;
    made integer := 0;
BEGIN
    -- Two processes that start at once must not both make the same table.
    PERFORM pg_advisory_xact_lock(x'4c53484f'::integer, 2);
    FOR day IN 0 .. days - 1 LOOP
        FOREACH parent IN ARRAY ARRAY['payloads', 'attempts', 'settled_jobs', 'memos'] LOOP
            partition := parent || to_char(today + day, '_YYYYMMDD');
            CONTINUE WHEN to_regclass(partition) IS NOT NULL OR to_regclass(parent) IS NULL;
            BEGIN
                -- Made apart and attached, because only this way inserts into other days go on.
                EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING ALL)', partition, parent);
                EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', parent, partition,
                               first_id_of(today + day), first_id_of(today + day + 1));
                made := made + 1;
            EXCEPTION WHEN check_violation THEN
                RAISE WARNING 'the rows of % stay in the default partition', partition;
            END;
        END LOOP;
    END LOOP;
    RETURN made;
END $$;

-- Drops the partitions of days that ended before `before_ms`, and returns how many. A day with a job that still may
-- run (live or a dead letter) is kept whole.
CREATE FUNCTION drop_partitions(before_ms bigint) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    stop date := DATE '1970-01-01' + (before_ms / 86400000)::integer;
    day date;
    parent text;
    dropped integer := 0;
BEGIN
    PERFORM pg_advisory_xact_lock(x'4c53484f'::integer, 2);
    FOR day IN
        SELECT to_date(right(c.relname, 8), 'YYYYMMDD')
        FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
        WHERE i.inhparent = to_regclass('payloads') AND c.relname ~ '_[0-9]{8}$'
        ORDER BY 1
    LOOP
        EXIT WHEN day >= stop;
        CONTINUE WHEN EXISTS (SELECT 1 FROM jobs WHERE id >= first_id_of(day) AND id < first_id_of(day + 1));
        FOREACH parent IN ARRAY ARRAY['settled_jobs', 'attempts', 'memos', 'payloads'] LOOP
            IF to_regclass(parent || to_char(day, '_YYYYMMDD')) IS NOT NULL THEN
                EXECUTE format('DROP TABLE %I', parent || to_char(day, '_YYYYMMDD'));
                dropped := dropped + 1;
            END IF;
        END LOOP;
    END LOOP;
    RETURN dropped;
END $$;

-- They act with the owner's rights, so not everybody may call them.
REVOKE ALL ON FUNCTION create_partitions(bigint, integer), drop_partitions(bigint) FROM PUBLIC;
