-- Archives: what operations have taken out of the journal into objects, and how each object is checked before it is believed.

-- Outlives its operation, whose row is forgotten after a while.
CREATE TABLE archives (
    id           uuid   NOT NULL PRIMARY KEY,
    filter       text   NOT NULL COLLATE "C",
    reason       text   COLLATE "C",
    asked_by     text   NOT NULL COLLATE "C",
    began_at     bigint NOT NULL,
    -- Sums over its objects, written with each of them.
    objects      bigint NOT NULL CHECK (objects >= 0),
    letters      bigint NOT NULL CHECK (letters >= 0),
    bytes        bigint NOT NULL CHECK (bytes >= 0),
    cost_nanousd bigint NOT NULL
);

-- An object is part of an archive once its row is here: it was written and read back before.
CREATE TABLE archive_objects (
    archive_id     uuid   NOT NULL,
    path           text   NOT NULL COLLATE "C",
    tenant         text   NOT NULL COLLATE "C",
    sha256         bytea  NOT NULL CHECK (octet_length(sha256) = 32),
    bytes          bigint NOT NULL CHECK (bytes > 0),
    letters        bigint NOT NULL CHECK (letters > 0),
    calls          bigint NOT NULL CHECK (calls >= 0),
    cost_nanousd   bigint NOT NULL,
    first_ended_at bigint NOT NULL,
    last_ended_at  bigint NOT NULL,
    -- Its letters were put back: what became of them since is in the journal, or in a later archive, and not here.
    restored       boolean NOT NULL DEFAULT FALSE,
    PRIMARY KEY (archive_id, path)
);

CREATE INDEX archive_objects_tenant ON archive_objects (tenant);

-- Lists of one queue's dead letters, behind however many of others.
CREATE INDEX jobs_dead_of_queue ON jobs (queue, id) WHERE standing = 2;

-- Deliveries are forgotten by when they ended: a replay may come for days after that, however late they were delivered.
DROP INDEX webhook_deliveries_ended;
CREATE INDEX webhook_deliveries_ended ON webhook_deliveries (due_at) WHERE state > 0;

SELECT guard_tenants();
