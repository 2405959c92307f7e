-- Purpose:   puts the payload of a letter back, unless there is a job of its id: each has one.
-- Arguments: 1 id, 2 tenant, 3 body, 4 fallback or NULL.
-- Returns:   nothing; 1 row changed where the id is free.
-- Invariant: of two that put the same letter back at once, one waits here and finds it there.
INSERT INTO payloads (id, tenant, body, fallback) VALUES ($1, $2, $3, $4) ON CONFLICT (id) DO NOTHING
