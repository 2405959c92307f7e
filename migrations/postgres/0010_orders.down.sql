-- Orders are lost: everybody works again.
ALTER TABLE sessions DROP COLUMN draining;
ALTER TABLE meta DROP COLUMN maintenance_reason;
ALTER TABLE meta DROP COLUMN maintenance_since;
