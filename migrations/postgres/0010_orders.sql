-- What operators order of the installation (maintenance: on while it has a moment) and of single workers (drain). Columns
-- without a rewrite: no table is written anew.

ALTER TABLE meta ADD COLUMN maintenance_since bigint;
ALTER TABLE meta ADD COLUMN maintenance_reason text COLLATE "C" CHECK (maintenance_reason IS NULL OR maintenance_since IS NOT NULL);
ALTER TABLE sessions ADD COLUMN draining boolean NOT NULL DEFAULT FALSE;
