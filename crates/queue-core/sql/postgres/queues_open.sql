-- Purpose:   makes queues exist because jobs named them.
-- Arguments: 1 names, in order.
-- Returns:   nothing.
-- Invariant: settings that are there stay as they are.
INSERT INTO queues (name) SELECT * FROM unnest($1::text[]) ON CONFLICT (name) DO NOTHING
