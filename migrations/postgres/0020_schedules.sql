-- Schedules: jobs that are submitted by the clock.

CREATE TABLE schedules (
    id         uuid   NOT NULL PRIMARY KEY,
    tenant     text   NOT NULL COLLATE "C",
    name       text   NOT NULL COLLATE "C",
    -- For whom its jobs are submitted.
    key_id     text   NOT NULL COLLATE "C",
    -- The job as a submit would send it.
    template   text   NOT NULL COLLATE "C",
    -- What people set, and how far it is, as `queue_core::schedule` writes them.
    settings   text   NOT NULL COLLATE "C",
    progress   text   NOT NULL COLLATE "C",
    -- Changes that people made, other times that it is due at, and changes of any kind.
    version    bigint NOT NULL CHECK (version >= 1),
    generation bigint NOT NULL CHECK (generation >= 1),
    beat       bigint NOT NULL DEFAULT 0 CHECK (beat >= 0),
    -- When a scheduler looks at it, and when others may while one does. NULL: not before somebody changes it.
    due_at     bigint,
    created_at bigint NOT NULL,
    UNIQUE (tenant, name)
)
-- Each tick writes its row anew: room on the page, and cleared early.
WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000, vacuum_truncate = FALSE);

CREATE INDEX schedules_due ON schedules (due_at, id) WHERE due_at IS NOT NULL;

SELECT guard_tenants();
