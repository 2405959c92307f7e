-- Purpose:   registers a worker process.
-- Arguments: 1 id, 2 host, 3 version, 4 slots, 5 started_at.
-- Returns:   nothing.
-- Invariant: asking again changes nothing.
INSERT INTO sessions (id, host, version, slots, started_at) VALUES ($1, $2, $3, $4, $5) ON CONFLICT (id) DO NOTHING
