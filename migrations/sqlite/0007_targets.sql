-- Targets and tenants can be paused, breakers held; jobs have fallback chains.

CREATE TABLE targets (
    name         TEXT    NOT NULL PRIMARY KEY,
    -- Grows with every change.
    version      INTEGER NOT NULL CHECK (version >= 1),
    paused       INTEGER NOT NULL CHECK (paused IN (0, 1)),
    paused_until INTEGER,
    reason       TEXT,
    breaker      TEXT    NOT NULL CHECK (breaker IN ('auto', 'open', 'close'))
) STRICT, WITHOUT ROWID;

ALTER TABLE tenants ADD COLUMN paused INTEGER NOT NULL DEFAULT 0 CHECK (paused IN (0, 1));
ALTER TABLE tenants ADD COLUMN paused_until INTEGER;
ALTER TABLE tenants ADD COLUMN reason TEXT;

-- A JSON array of {model, on}, or NULL for none. Beside the payload: both say what a job asks for, and never change.
ALTER TABLE payloads ADD COLUMN fallback TEXT;
