-- What operators set, what processes register, and the numbers that must not be counted row by row.

-- A queue exists once a job or an operator named it.
CREATE TABLE queues (
    name         TEXT    NOT NULL PRIMARY KEY,
    -- 0 until an operator sets something; grows with every change.
    version      INTEGER NOT NULL DEFAULT 0 CHECK (version >= 0),
    paused       INTEGER NOT NULL DEFAULT 0 CHECK (paused IN (0, 1)),
    paused_until INTEGER,
    reason       TEXT,
    concurrency  INTEGER,
    timeout_ms   INTEGER
) STRICT, WITHOUT ROWID;

-- Written once for each queue of a transaction, however many jobs it moves. Jobs that are pruned leave these as they
-- are: `accepted`, `succeeded` and `cancelled` count since the queue exists, `dead` and `live` are of now.
CREATE TABLE queue_totals (
    queue     TEXT    NOT NULL PRIMARY KEY,
    accepted  INTEGER NOT NULL DEFAULT 0 CHECK (accepted >= 0),
    succeeded INTEGER NOT NULL DEFAULT 0 CHECK (succeeded >= 0),
    cancelled INTEGER NOT NULL DEFAULT 0 CHECK (cancelled >= 0),
    dead      INTEGER NOT NULL DEFAULT 0 CHECK (dead >= 0),
    live      INTEGER NOT NULL DEFAULT 0 CHECK (live >= 0)
) STRICT, WITHOUT ROWID;

-- What operators set for a tenant.
CREATE TABLE tenants (
    name        TEXT    NOT NULL PRIMARY KEY,
    -- Grows with every change.
    version     INTEGER NOT NULL CHECK (version >= 1),
    backlog_max INTEGER CHECK (backlog_max >= 0),
    weight      INTEGER NOT NULL CHECK (weight >= 1)
) STRICT, WITHOUT ROWID;

-- A tenant's live jobs, written as the numbers of queues are.
CREATE TABLE tenant_totals (
    tenant TEXT    NOT NULL PRIMARY KEY,
    live   INTEGER NOT NULL CHECK (live >= 0)
) STRICT, WITHOUT ROWID;

CREATE TABLE api_keys (
    id          TEXT    NOT NULL PRIMARY KEY,
    secret_hash BLOB    NOT NULL CHECK (length(secret_hash) = 32),
    tenant      TEXT    NOT NULL,
    role        TEXT    NOT NULL CHECK (role IN ('admin')),
    name        TEXT    NOT NULL,
    created_at  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE sessions (
    id         BLOB    NOT NULL PRIMARY KEY CHECK (length(id) = 16),
    host       TEXT    NOT NULL,
    version    TEXT    NOT NULL,
    slots      INTEGER NOT NULL CHECK (slots >= 0),
    started_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- One row. `incarnation` is the journal's life (a restore raises it), `generation` the dispatcher's. Live rows up to
-- (`filled_run_at`, `filled_id`) have been pushed into that life, all of them once it is `filled`; whoever pushes them
-- raises `fill_beat` with every note. `checked_at` is what a readiness check writes to find out whether writing works.
CREATE TABLE meta (
    one           INTEGER PRIMARY KEY CHECK (one = 1),
    incarnation   INTEGER NOT NULL CHECK (incarnation >= 1),
    generation    INTEGER NOT NULL CHECK (generation >= 0),
    -- When that life began: rows accepted later are pushed by whoever accepted them.
    began_at      INTEGER NOT NULL DEFAULT 0,
    fill_beat     INTEGER NOT NULL DEFAULT 0 CHECK (fill_beat >= 0),
    filled        INTEGER NOT NULL DEFAULT 1 CHECK (filled IN (0, 1)),
    filled_run_at INTEGER,
    filled_id     BLOB    CHECK (length(filled_id) = 16),
    checked_at    INTEGER NOT NULL,
    CHECK ((filled_run_at IS NULL) = (filled_id IS NULL))
) STRICT;

INSERT INTO meta (one, incarnation, generation, checked_at) VALUES (1, 1, 0, 0);
