-- Takes back 0023_log_level: each process logs what it was told at its start.

ALTER TABLE meta DROP COLUMN log_until;
ALTER TABLE meta DROP COLUMN log_filter;
