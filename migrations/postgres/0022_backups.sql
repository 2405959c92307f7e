-- Backups: orders that schedulers carry out, and what became of them: a record for people. What is good stands in the manifest
-- beside a backup's parts, and not here.

CREATE TABLE backups (
    id         uuid   NOT NULL PRIMARY KEY,
    ordered_at bigint NOT NULL,
    -- What is still to be done: 0 nothing, 1 to make it, 2 to check it.
    work       smallint NOT NULL CHECK (work IN (0, 1, 2)),
    -- Whoever works raises it, and only from the number that he has seen.
    beat       bigint NOT NULL DEFAULT 0,
    -- What it is and what became of it (`queue_core::backup::Record`), as JSON.
    record     text   NOT NULL COLLATE "C"
);

CREATE INDEX backups_newest ON backups (ordered_at, id);
CREATE INDEX backups_work ON backups (ordered_at, id) WHERE work > 0;

-- When the journal was restored, until somebody confirms it: until then no webhook is sent. One that was restored before this column
-- was there says so in its reason.
ALTER TABLE meta ADD COLUMN restored_at bigint;
UPDATE meta SET restored_at = maintenance_since WHERE maintenance_reason LIKE 'restored from backup %';
