-- What was set is lost; the configuration holds.
ALTER TABLE targets DROP COLUMN concurrency;
ALTER TABLE targets DROP COLUMN tokens_charged;
ALTER TABLE targets DROP COLUMN tokens_per_minute;
ALTER TABLE targets DROP COLUMN requests_per_minute;
