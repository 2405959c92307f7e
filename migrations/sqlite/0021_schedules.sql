-- Schedules: jobs that are submitted by the clock.
CREATE TABLE schedules (
    id         BLOB    NOT NULL PRIMARY KEY CHECK (length(id) = 16),
    tenant     TEXT    NOT NULL,
    name       TEXT    NOT NULL,
    -- For whom its jobs are submitted.
    key_id     TEXT    NOT NULL,
    -- The job as a submit would send it.
    template   TEXT    NOT NULL,
    -- What people set, and how far it is, as `queue_core::schedule` writes them.
    settings   TEXT    NOT NULL,
    progress   TEXT    NOT NULL,
    -- Changes that people made, other times that it is due at, and changes of any kind.
    version    INTEGER NOT NULL CHECK (version >= 1),
    generation INTEGER NOT NULL CHECK (generation >= 1),
    beat       INTEGER NOT NULL DEFAULT 0 CHECK (beat >= 0),
    -- When a scheduler looks at it. NULL: not before somebody changes it.
    due_at     INTEGER,
    created_at INTEGER NOT NULL,
    UNIQUE (tenant, name)
) STRICT;

CREATE INDEX schedules_due ON schedules (due_at, id) WHERE due_at IS NOT NULL;
