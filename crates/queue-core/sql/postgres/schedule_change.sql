-- Purpose:   changes what people set of a schedule.
-- Arguments: 1 id, 2 the beat that was seen, 3 name, 4 key_id, 5 template, 6 settings, 7 progress, 8 generation, 9 due_at or NULL.
-- Returns:   nothing; 1 row changed, or 0 where it is at another beat or gone.
-- Invariant: a scheduler that works on it finds another beat.
UPDATE schedules
SET name = $3, key_id = $4, template = $5, settings = $6, progress = $7, generation = $8, due_at = $9,
    version = version + 1, beat = beat + 1
WHERE id = $1 AND beat = $2
