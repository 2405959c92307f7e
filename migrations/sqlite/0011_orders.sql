-- What operators order of the installation (maintenance: on while it has a moment) and of single workers (drain).

ALTER TABLE meta ADD COLUMN maintenance_since INTEGER;
ALTER TABLE meta ADD COLUMN maintenance_reason TEXT CHECK (maintenance_reason IS NULL OR maintenance_since IS NOT NULL);
ALTER TABLE sessions ADD COLUMN draining INTEGER NOT NULL DEFAULT 0 CHECK (draining IN (0, 1));
