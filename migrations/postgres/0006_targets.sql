-- Targets and tenants can be paused, breakers held; jobs have fallback chains. Columns without a default that would be
-- written: no table is written anew.

CREATE TABLE targets (
    name         text    NOT NULL COLLATE "C" PRIMARY KEY,
    -- Grows with every change.
    version      bigint  NOT NULL CHECK (version >= 1),
    paused       boolean NOT NULL,
    paused_until bigint,
    reason       text    COLLATE "C",
    breaker      text    NOT NULL COLLATE "C" CHECK (breaker IN ('auto', 'open', 'close'))
);

ALTER TABLE tenants ADD COLUMN paused boolean NOT NULL DEFAULT FALSE;
ALTER TABLE tenants ADD COLUMN paused_until bigint;
ALTER TABLE tenants ADD COLUMN reason text COLLATE "C";

-- A JSON array of {model, on}, or NULL for none. Beside the payload: both say what a job asks for, and never change.
ALTER TABLE payloads ADD COLUMN fallback text COLLATE "C";
