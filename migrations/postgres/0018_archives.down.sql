-- Undoes 0018_archives.sql. Objects stay where they are, with their manifests; nothing here names them any more.
DROP INDEX webhook_deliveries_ended;
CREATE INDEX webhook_deliveries_ended ON webhook_deliveries (at) WHERE state > 0;
DROP INDEX jobs_dead_of_queue;
DROP TABLE archive_objects;
DROP TABLE archives;
