-- Purpose:   the row of a queue's numbers, before the first job of it is counted.
-- Arguments: 1 queue.
-- Returns:   nothing.
-- Invariant: a row that is there stays as it is.
INSERT INTO queue_totals (queue) VALUES (?1) ON CONFLICT (queue) DO NOTHING;
