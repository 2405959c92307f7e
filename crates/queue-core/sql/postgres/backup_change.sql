-- Purpose:   notes how a backup stands.
-- Arguments: 1 id, 2 the beat that was seen, 3 work, 4 record.
-- Returns:   nothing.
-- Invariant: only at that beat, which grows.
UPDATE backups SET beat = beat + 1, work = $3, record = $4 WHERE id = $1 AND beat = $2
