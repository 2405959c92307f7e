-- Operators may set what a target takes while everything runs. A row may also stand for a pattern of targets, which has nothing
-- but a limit. NULL: as configured. Columns without a default: no table is written anew.

ALTER TABLE targets ADD COLUMN requests_per_minute bigint CHECK (requests_per_minute >= 1);
ALTER TABLE targets ADD COLUMN tokens_per_minute bigint CHECK (tokens_per_minute >= 1);
ALTER TABLE targets ADD COLUMN tokens_charged text COLLATE "C" CHECK (tokens_charged IN ('admission', 'usage'));
ALTER TABLE targets ADD COLUMN concurrency integer CHECK (concurrency >= 1);
