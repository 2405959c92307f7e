-- Purpose:   notes that the letters of an object are put back.
-- Arguments: 1 id of the archive, 2 path of the object.
-- Returns:   a row changed, or none: they were put back before, or there is no such object.
-- Invariant: goes before the letters in its transaction, so that they are put back once.
UPDATE archive_objects SET restored = 1 WHERE archive_id = ?1 AND path = ?2 AND restored = 0;
