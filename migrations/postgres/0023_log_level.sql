-- What every process logs instead of what it was told at its start, for as long as an operator wants to look closer. Columns without
-- a rewrite.

ALTER TABLE meta ADD COLUMN log_filter text COLLATE "C";
ALTER TABLE meta ADD COLUMN log_until bigint CHECK (log_until IS NULL OR log_filter IS NOT NULL);
