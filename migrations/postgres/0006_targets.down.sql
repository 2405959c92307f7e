-- Undoes 0006_targets.sql. Pauses, held breakers and fallback chains are lost with it: jobs that are still to run go on
-- with their first model alone, and wait in the lane of their chain, where no limit or pause of a target reaches them.

ALTER TABLE payloads DROP COLUMN fallback;
ALTER TABLE tenants DROP COLUMN reason;
ALTER TABLE tenants DROP COLUMN paused_until;
ALTER TABLE tenants DROP COLUMN paused;
DROP TABLE targets;
