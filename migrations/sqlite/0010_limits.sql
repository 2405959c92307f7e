-- Operators may set what a target takes while everything runs. A row may also stand for a pattern of targets, which has nothing
-- but a limit. NULL: as configured.

ALTER TABLE targets ADD COLUMN requests_per_minute INTEGER CHECK (requests_per_minute >= 1);
ALTER TABLE targets ADD COLUMN tokens_per_minute INTEGER CHECK (tokens_per_minute >= 1);
ALTER TABLE targets ADD COLUMN tokens_charged TEXT CHECK (tokens_charged IN ('admission', 'usage'));
ALTER TABLE targets ADD COLUMN concurrency INTEGER CHECK (concurrency >= 1);
