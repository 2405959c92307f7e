-- What operators set, what processes register, and the numbers that must not be counted row by row.

-- A queue exists once a job or an operator named it.
CREATE TABLE queues (
    name         text    NOT NULL COLLATE "C" PRIMARY KEY,
    -- 0 until an operator sets something; grows with every change.
    version      bigint  NOT NULL DEFAULT 0 CHECK (version >= 0),
    paused       boolean NOT NULL DEFAULT FALSE,
    paused_until bigint,
    reason       text    COLLATE "C",
    concurrency  bigint,
    timeout_ms   bigint
);

-- A queue's numbers are the sums over its slots: a writer adds to the slot of its connection, so that writers do not
-- wait for each other's commits. One slot's number may be negative, a sum never is. Jobs that are pruned leave these as
-- they are: `accepted`, `succeeded` and `cancelled` count since the queue exists, `dead` and `live` are of now.
CREATE TABLE queue_totals (
    queue     text     NOT NULL COLLATE "C",
    slot      smallint NOT NULL,
    accepted  bigint   NOT NULL DEFAULT 0 CHECK (accepted >= 0),
    succeeded bigint   NOT NULL DEFAULT 0 CHECK (succeeded >= 0),
    cancelled bigint   NOT NULL DEFAULT 0 CHECK (cancelled >= 0),
    dead      bigint   NOT NULL DEFAULT 0,
    live      bigint   NOT NULL DEFAULT 0,
    PRIMARY KEY (queue, slot)
)
-- Written with every commit: most of a page is room for new versions.
WITH (fillfactor = 20, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000,
      autovacuum_vacuum_cost_delay = 0, vacuum_truncate = FALSE);

-- What operators set for a tenant.
CREATE TABLE tenants (
    name        text    NOT NULL COLLATE "C" PRIMARY KEY,
    -- Grows with every change.
    version     bigint  NOT NULL CHECK (version >= 1),
    backlog_max bigint  CHECK (backlog_max >= 0),
    weight      integer NOT NULL CHECK (weight >= 1)
);

-- A tenant's live jobs, in slots as the numbers of queues are.
CREATE TABLE tenant_totals (
    tenant text     NOT NULL COLLATE "C",
    slot   smallint NOT NULL,
    live   bigint   NOT NULL,
    PRIMARY KEY (tenant, slot)
)
WITH (fillfactor = 20, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000,
      autovacuum_vacuum_cost_delay = 0, vacuum_truncate = FALSE);

CREATE TABLE api_keys (
    id          text   NOT NULL COLLATE "C" PRIMARY KEY,
    secret_hash bytea  NOT NULL CHECK (octet_length(secret_hash) = 32),
    tenant      text   NOT NULL COLLATE "C",
    role        text   NOT NULL COLLATE "C" CHECK (role IN ('admin')),
    name        text   NOT NULL COLLATE "C",
    created_at  bigint NOT NULL
);

CREATE TABLE sessions (
    id         uuid   NOT NULL PRIMARY KEY,
    host       text   NOT NULL COLLATE "C",
    version    text   NOT NULL COLLATE "C",
    slots      bigint NOT NULL CHECK (slots >= 0),
    started_at bigint NOT NULL
);

-- One row. `incarnation` is the journal's life (a restore raises it), `generation` the dispatcher's. Live rows up to
-- (`filled_run_at`, `filled_id`) have been pushed into that life, all of them once it is `filled`; whoever pushes them
-- raises `fill_beat` with every note. `checked_at` is what a readiness check writes to find out whether writing works.
CREATE TABLE meta (
    one           smallint PRIMARY KEY CHECK (one = 1),
    incarnation   bigint   NOT NULL CHECK (incarnation >= 1),
    generation    bigint   NOT NULL CHECK (generation >= 0),
    -- When that life began: rows accepted later are pushed by whoever accepted them.
    began_at      bigint   NOT NULL DEFAULT 0,
    fill_beat     bigint   NOT NULL DEFAULT 0 CHECK (fill_beat >= 0),
    filled        boolean  NOT NULL DEFAULT TRUE,
    filled_run_at bigint,
    filled_id     uuid,
    checked_at    bigint   NOT NULL,
    CHECK ((filled_run_at IS NULL) = (filled_id IS NULL))
);

INSERT INTO meta (one, incarnation, generation, checked_at) VALUES (1, 1, 0, 0);
