-- What every process logs instead of what it was told at its start, for as long as an operator wants to look closer.

ALTER TABLE meta ADD COLUMN log_filter TEXT;
ALTER TABLE meta ADD COLUMN log_until INTEGER CHECK (log_until IS NULL OR log_filter IS NOT NULL);
