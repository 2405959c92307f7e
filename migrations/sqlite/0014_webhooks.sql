-- Who is told of what, and what is still to be delivered.

-- The job's own receiver.
ALTER TABLE jobs ADD COLUMN webhook TEXT;

-- Jobs that go to a service's URL, and those whose handler is of somebody's own program. A check of a table can only be changed
-- in its text; the table is not written anew (see "Making Other Kinds Of Table Schema Changes" in SQLite's ALTER TABLE).
PRAGMA writable_schema = ON;
UPDATE sqlite_schema
SET sql = replace(sql, '(''llm'', ''embedding'', ''analysis'', ''probe'')',
                  '(''llm'', ''embedding'', ''analysis'', ''probe'', ''http'', ''custom'')')
WHERE type = 'table' AND name = 'jobs';
PRAGMA writable_schema = RESET;

-- Receivers that operators have set.
CREATE TABLE webhook_endpoints (
    id          BLOB    NOT NULL PRIMARY KEY CHECK (length(id) = 16),
    -- Whose events; '' stands for everybody's.
    tenant      TEXT    NOT NULL,
    url         TEXT    NOT NULL,
    -- What it wants to hear of: the bits of `EventKind`.
    events      INTEGER NOT NULL CHECK (events > 0),
    enabled     INTEGER NOT NULL CHECK (enabled IN (0, 1)),
    reason      TEXT,
    description TEXT,
    version     INTEGER NOT NULL CHECK (version >= 1),
    created_at  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- What messages are signed with, sealed. The newest of an owner signs; the one before it signs beside it for a while.
CREATE TABLE signing_secrets (
    -- `endpoint:<id>` or `tenant:<name>`.
    owner       TEXT    NOT NULL,
    version     INTEGER NOT NULL CHECK (version >= 1),
    kek_id      TEXT    NOT NULL,
    wrapped_key BLOB    NOT NULL,
    ciphertext  BLOB    NOT NULL,
    created_at  INTEGER NOT NULL,
    valid_until INTEGER,
    PRIMARY KEY (owner, version)
) STRICT, WITHOUT ROWID;

-- One event for one receiver, written with the event. A pending row is claimed by moving `due_at` ahead: an owner that dies
-- leaves a row that becomes due by itself.
CREATE TABLE webhook_deliveries (
    seq         INTEGER PRIMARY KEY AUTOINCREMENT,
    -- The message's id: the same in every attempt.
    id          BLOB    NOT NULL UNIQUE DEFAULT (randomblob(16)) CHECK (length(id) = 16),
    -- NULL: the URL is the job's own, and stands in `url`.
    endpoint_id BLOB,
    url         TEXT,
    -- With whom it waits in turn: its endpoint's deliveries, or those of the same host.
    lane        TEXT    NOT NULL,
    -- '' stands for the installation.
    tenant      TEXT    NOT NULL,
    event       TEXT    NOT NULL,
    job_id      BLOB,
    at          INTEGER NOT NULL,
    -- NULL until the message of a job was first sent; then it stays.
    body        TEXT,
    -- 0 pending, 1 delivered, 2 failed, 3 dropped: `DeliveryState::code`.
    state       INTEGER NOT NULL DEFAULT 0 CHECK (state BETWEEN 0 AND 3),
    attempts    INTEGER NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    tries       INTEGER NOT NULL DEFAULT 0 CHECK (tries >= 0),
    due_at      INTEGER NOT NULL,
    owner       BLOB,
    last        TEXT,
    CHECK ((endpoint_id IS NULL) = (url IS NOT NULL)),
    CHECK (body IS NOT NULL OR job_id IS NOT NULL)
) STRICT;

CREATE INDEX webhook_deliveries_due ON webhook_deliveries (lane, due_at, seq) WHERE state = 0;
CREATE INDEX webhook_deliveries_endpoint ON webhook_deliveries (endpoint_id, seq) WHERE endpoint_id IS NOT NULL;
CREATE INDEX webhook_deliveries_job ON webhook_deliveries (job_id, seq) WHERE job_id IS NOT NULL;
CREATE INDEX webhook_deliveries_ended ON webhook_deliveries (at) WHERE state > 0;

CREATE TABLE webhook_attempts (
    number      INTEGER PRIMARY KEY AUTOINCREMENT,
    delivery    INTEGER NOT NULL,
    at          INTEGER NOT NULL,
    duration_ms INTEGER NOT NULL,
    status      INTEGER,
    answer      TEXT,
    error       TEXT
) STRICT;

CREATE INDEX webhook_attempts_delivery ON webhook_attempts (delivery, number);

-- Circuits that were told of as open: whoever changes a row tells the change, once.
CREATE TABLE webhook_circuits (
    circuit TEXT    NOT NULL PRIMARY KEY,
    at      INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- A delivery as `journal::sqlite::webhooks` reads it: the order of these columns is its contract.
CREATE VIEW delivery_rows AS
SELECT d.seq, d.id, d.endpoint_id, d.lane, d.tenant, d.event, d.job_id, d.at, coalesce(d.url, e.url) AS url,
       coalesce(e.enabled, d.endpoint_id IS NULL) AS enabled, d.body, d.state, d.attempts, d.tries, d.due_at, d.last
FROM webhook_deliveries d LEFT JOIN webhook_endpoints e ON e.id = d.endpoint_id;
