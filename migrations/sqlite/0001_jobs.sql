-- Jobs, what they carry, how their attempts ended, and the keys that keep them from being accepted twice.
--
-- `seq` is the rowid that the satellites of a job (payload, result, attempts) are keyed by: appending to a rowid
-- table is SQLite's fastest insert, and only one index holds the 16-byte id. Payloads and results are apart from the
-- row that every settle rewrites. Times are milliseconds since the Unix epoch. No foreign keys: rows are written
-- together in one transaction, and money outlives the job that spent it.

CREATE TABLE jobs (
    seq                INTEGER PRIMARY KEY,
    id                 BLOB    NOT NULL UNIQUE CHECK (length(id) = 16),
    tenant             TEXT    NOT NULL,
    queue              TEXT    NOT NULL,
    kind               TEXT    NOT NULL CHECK (kind IN ('llm', 'embedding', 'analysis', 'probe')),
    target             TEXT    NOT NULL,
    priority           INTEGER NOT NULL CHECK (priority BETWEEN 0 AND 9),
    -- 0 live, 1 succeeded, 2 dead, 3 cancelled: `Standing::code`.
    standing           INTEGER NOT NULL DEFAULT 0 CHECK (standing BETWEEN 0 AND 3),
    epoch              INTEGER NOT NULL DEFAULT 0 CHECK (epoch >= 0),
    attempts           INTEGER NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    max_attempts       INTEGER NOT NULL CHECK (max_attempts >= 1),
    recoveries         INTEGER NOT NULL DEFAULT 0 CHECK (recoveries >= 0),
    releases           INTEGER NOT NULL DEFAULT 0 CHECK (releases >= 0),
    redrives           INTEGER NOT NULL DEFAULT 0 CHECK (redrives >= 0),
    run_at             INTEGER NOT NULL,
    start_by           INTEGER,
    deadline           INTEGER,
    timeout_ms         INTEGER,
    accepted_at        INTEGER NOT NULL,
    finished_at        INTEGER,
    unique_key         TEXT,
    operation          TEXT,
    batch_id           TEXT,
    -- A JSON array of text, or NULL for none.
    tags               TEXT,
    request_id         TEXT,
    traceparent        TEXT,
    -- The last error as JSON, and the two parts of it that lists are narrowed by.
    error              TEXT,
    error_class        TEXT,
    error_signature    TEXT,
    served_by          TEXT,
    cancel_reason      TEXT,
    -- Running sums over the job's rows in `spend`.
    calls              INTEGER NOT NULL DEFAULT 0 CHECK (calls >= 0),
    tokens_in          INTEGER NOT NULL DEFAULT 0,
    tokens_out         INTEGER NOT NULL DEFAULT 0,
    tokens_cached      INTEGER NOT NULL DEFAULT 0,
    tokens_cache_write INTEGER NOT NULL DEFAULT 0,
    tokens_reasoning   INTEGER NOT NULL DEFAULT 0,
    cost_nanousd       INTEGER NOT NULL DEFAULT 0,
    -- 1 once a billed call had no price: the sum above is then a lower bound.
    cost_unknown       INTEGER NOT NULL DEFAULT 0 CHECK (cost_unknown IN (0, 1)),
    -- Exactly the final jobs have an end, and no dead letter is without a cause.
    CHECK ((standing = 0) = (finished_at IS NULL)),
    CHECK (standing <> 2 OR error IS NOT NULL),
    CHECK ((error IS NULL) = (error_class IS NULL) AND (error IS NULL) = (error_signature IS NULL))
) STRICT;

-- What the dispatcher is rebuilt from, in the order in which it becomes due.
CREATE INDEX jobs_live ON jobs (run_at, id) WHERE standing = 0;
-- Dead letters, for lists and by cause.
CREATE INDEX jobs_dead ON jobs (id) WHERE standing = 2;
CREATE INDEX jobs_dead_cause ON jobs (error_signature, error_class, queue, finished_at, cost_nanousd)
    WHERE standing = 2;
-- Counts and lists of a batch.
CREATE INDEX jobs_batch ON jobs (batch_id, id, standing) WHERE batch_id IS NOT NULL;

CREATE TABLE payloads (
    seq  INTEGER PRIMARY KEY,
    body BLOB NOT NULL
) STRICT;

CREATE TABLE results (
    seq  INTEGER PRIMARY KEY,
    body BLOB NOT NULL
) STRICT;

-- One row for each attempt that ended: an epoch is settled or recovered at most once.
CREATE TABLE attempts (
    seq         INTEGER NOT NULL,
    epoch       INTEGER NOT NULL,
    number      INTEGER NOT NULL CHECK (number >= 1),
    outcome     TEXT    NOT NULL CHECK (outcome IN ('succeed', 'retry', 'dead', 'release', 'cancel', 'lost')),
    session     BLOB    NOT NULL CHECK (length(session) = 16),
    started_at  INTEGER,
    finished_at INTEGER NOT NULL,
    error       TEXT,
    PRIMARY KEY (seq, epoch)
) STRICT, WITHOUT ROWID;

-- Requests that were accepted and may be repeated.
CREATE TABLE idempotency_keys (
    tenant      TEXT    NOT NULL,
    key         TEXT    NOT NULL,
    item        INTEGER NOT NULL,
    fingerprint BLOB    NOT NULL CHECK (length(fingerprint) = 32),
    job_id      BLOB    NOT NULL CHECK (length(job_id) = 16),
    created_at  INTEGER NOT NULL,
    PRIMARY KEY (tenant, key, item)
) STRICT, WITHOUT ROWID;

-- Which live job holds a unique key; gone with the write that ends the job.
CREATE TABLE unique_keys (
    tenant TEXT NOT NULL,
    key    TEXT NOT NULL,
    job_id BLOB NOT NULL CHECK (length(job_id) = 16),
    PRIMARY KEY (tenant, key)
) STRICT, WITHOUT ROWID;

-- A job as `journal::sqlite::rows::job` reads it: the order of these columns is its contract.
CREATE VIEW job_rows AS
SELECT seq, id, tenant, queue, kind, target, priority, standing, epoch, attempts, max_attempts, recoveries, releases,
       redrives, run_at, start_by, deadline, timeout_ms, accepted_at, finished_at, unique_key, operation, batch_id,
       tags, request_id, traceparent, error, served_by, tokens_in, tokens_out, tokens_cached, tokens_cache_write,
       tokens_reasoning, cost_nanousd, cost_unknown, error_class, error_signature
FROM jobs;
