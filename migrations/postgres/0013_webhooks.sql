-- Who is told of what, and what is still to be delivered.

-- The job's own receiver. NULL: nobody; a column without a default writes no table anew.
ALTER TABLE jobs ADD COLUMN webhook text COLLATE "C";

-- Jobs that go to a service's URL, and those whose handler is of somebody's own program.
ALTER TABLE jobs DROP CONSTRAINT jobs_kind_check;
ALTER TABLE jobs ADD CONSTRAINT jobs_kind_check CHECK (kind IN ('llm', 'embedding', 'analysis', 'probe', 'http', 'custom'));

-- Receivers that operators have set.
CREATE TABLE webhook_endpoints (
    id          uuid    NOT NULL PRIMARY KEY,
    -- Whose events; '' stands for everybody's.
    tenant      text    NOT NULL COLLATE "C",
    url         text    NOT NULL COLLATE "C",
    -- What it wants to hear of: the bits of `EventKind`.
    events      bigint  NOT NULL CHECK (events > 0),
    enabled     boolean NOT NULL,
    reason      text    COLLATE "C",
    description text    COLLATE "C",
    version     bigint  NOT NULL CHECK (version >= 1),
    created_at  bigint  NOT NULL
);

CREATE INDEX webhook_endpoints_tenant ON webhook_endpoints (tenant);

-- What messages are signed with, sealed. The newest of an owner signs; the one before it signs beside it for a while.
CREATE TABLE signing_secrets (
    -- `endpoint:<id>` or `tenant:<name>`.
    owner       text   NOT NULL COLLATE "C",
    version     bigint NOT NULL CHECK (version >= 1),
    kek_id      text   NOT NULL COLLATE "C",
    wrapped_key bytea  NOT NULL,
    ciphertext  bytea  NOT NULL,
    created_at  bigint NOT NULL,
    valid_until bigint,
    PRIMARY KEY (owner, version)
);

-- One event for one receiver, written with the event. A pending row is claimed by moving `due_at` ahead: an owner that dies
-- leaves a row that becomes due by itself.
CREATE TABLE webhook_deliveries (
    seq         bigint   NOT NULL GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    -- The message's id: the same in every attempt.
    id          uuid     NOT NULL DEFAULT gen_random_uuid() UNIQUE,
    -- NULL: the URL is the job's own, and stands in `url`.
    endpoint_id uuid,
    url         text     COLLATE "C",
    -- With whom it waits in turn: its endpoint's deliveries, or those of the same host.
    lane        text     NOT NULL COLLATE "C",
    -- '' stands for the installation.
    tenant      text     NOT NULL COLLATE "C",
    event       text     NOT NULL COLLATE "C",
    job_id      uuid,
    at          bigint   NOT NULL,
    -- NULL until the message of a job was first sent; then it stays.
    body        text     COLLATE "C",
    -- 0 pending, 1 delivered, 2 failed, 3 dropped: `DeliveryState::code`.
    state       smallint NOT NULL DEFAULT 0 CHECK (state BETWEEN 0 AND 3),
    attempts    integer  NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    tries       integer  NOT NULL DEFAULT 0 CHECK (tries >= 0),
    due_at      bigint   NOT NULL,
    owner       uuid,
    last        text     COLLATE "C",
    CHECK ((endpoint_id IS NULL) = (url IS NOT NULL)),
    CHECK (body IS NOT NULL OR job_id IS NOT NULL)
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.05, vacuum_truncate = FALSE);

CREATE INDEX webhook_deliveries_due ON webhook_deliveries (lane, due_at, seq) WHERE state = 0;
CREATE INDEX webhook_deliveries_endpoint ON webhook_deliveries (endpoint_id, seq) WHERE endpoint_id IS NOT NULL;
CREATE INDEX webhook_deliveries_job ON webhook_deliveries (job_id, seq) WHERE job_id IS NOT NULL;
CREATE INDEX webhook_deliveries_ended ON webhook_deliveries (at) WHERE state > 0;

CREATE TABLE webhook_attempts (
    delivery    bigint  NOT NULL,
    number      bigint  NOT NULL GENERATED ALWAYS AS IDENTITY,
    at          bigint  NOT NULL,
    duration_ms bigint  NOT NULL,
    status      integer,
    answer      text    COLLATE "C",
    error       text    COLLATE "C",
    PRIMARY KEY (delivery, number)
);

-- Circuits that were told of as open: whoever changes a row tells the change, once.
CREATE TABLE webhook_circuits (
    circuit text   NOT NULL COLLATE "C" PRIMARY KEY,
    at      bigint NOT NULL
);

-- A delivery as `journal::postgres::webhooks` reads it: the order of these columns is its contract.
CREATE VIEW delivery_rows AS
SELECT d.seq, d.id, d.endpoint_id, d.lane, d.tenant, d.event, d.job_id, d.at, coalesce(d.url, e.url) AS url,
       coalesce(e.enabled, d.endpoint_id IS NULL) AS enabled, d.body, d.state, d.attempts, d.tries, d.due_at, d.last
FROM webhook_deliveries d LEFT JOIN webhook_endpoints e ON e.id = d.endpoint_id;
