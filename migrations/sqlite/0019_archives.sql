-- Archives: what operations have taken out of the journal into objects, and how each object is checked before it is believed.

-- Outlives its operation, whose row is forgotten after a while.
CREATE TABLE archives (
    id           BLOB    NOT NULL PRIMARY KEY CHECK (length(id) = 16),
    filter       TEXT    NOT NULL,
    reason       TEXT,
    asked_by     TEXT    NOT NULL,
    began_at     INTEGER NOT NULL,
    -- Sums over its objects, written with each of them.
    objects      INTEGER NOT NULL CHECK (objects >= 0),
    letters      INTEGER NOT NULL CHECK (letters >= 0),
    bytes        INTEGER NOT NULL CHECK (bytes >= 0),
    cost_nanousd INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- An object is part of an archive once its row is here: it was written and read back before.
CREATE TABLE archive_objects (
    archive_id     BLOB    NOT NULL CHECK (length(archive_id) = 16),
    path           TEXT    NOT NULL,
    tenant         TEXT    NOT NULL,
    sha256         BLOB    NOT NULL CHECK (length(sha256) = 32),
    bytes          INTEGER NOT NULL CHECK (bytes > 0),
    letters        INTEGER NOT NULL CHECK (letters > 0),
    calls          INTEGER NOT NULL CHECK (calls >= 0),
    cost_nanousd   INTEGER NOT NULL,
    first_ended_at INTEGER NOT NULL,
    last_ended_at  INTEGER NOT NULL,
    -- Its letters were put back: what became of them since is in the journal, or in a later archive, and not here.
    restored       INTEGER NOT NULL DEFAULT 0 CHECK (restored IN (0, 1)),
    PRIMARY KEY (archive_id, path)
) STRICT, WITHOUT ROWID;

CREATE INDEX archive_objects_tenant ON archive_objects (tenant);

-- Lists of one queue's dead letters, behind however many of others.
CREATE INDEX jobs_dead_of_queue ON jobs (queue, id) WHERE standing = 2;

-- Deliveries are forgotten by when they ended: a replay may come for days after that, however late they were delivered.
DROP INDEX webhook_deliveries_ended;
CREATE INDEX webhook_deliveries_ended ON webhook_deliveries (due_at) WHERE state > 0;
