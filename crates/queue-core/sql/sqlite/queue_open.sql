-- Purpose:   makes a queue exist because a job named it.
-- Arguments: 1 name.
-- Returns:   nothing.
-- Invariant: settings that are there stay as they are.
INSERT INTO queues (name) VALUES (?1) ON CONFLICT (name) DO NOTHING;
