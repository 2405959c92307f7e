-- Undoes 0001_jobs.sql. Every job is lost with it: only for a journal that holds nothing worth keeping.

DROP FUNCTION drop_partitions(bigint);
DROP FUNCTION create_partitions(bigint, integer);
DROP FUNCTION first_id_of(date);
DROP VIEW job_rows;
DROP TABLE unique_keys;
DROP TABLE idempotency_keys;
DROP TABLE idempotency_bodies;
DROP TABLE attempts;
DROP TABLE payloads;
DROP TABLE settled_jobs;
DROP TABLE jobs;
