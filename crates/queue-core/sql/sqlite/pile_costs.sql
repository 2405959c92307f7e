-- Purpose:   how many single calls, charges and savings are older than a moment, and how old the oldest call is.
-- Arguments: 1 the moment, 2 count no further in each.
-- Returns:   how many, the oldest moment of all.
-- Invariant: writes nothing.
SELECT (SELECT count(*) FROM (SELECT 1 FROM spend WHERE at < ?1 ORDER BY at LIMIT ?2))
       + (SELECT count(*) FROM (SELECT 1 FROM charges WHERE at < ?1 ORDER BY at LIMIT ?2))
       + (SELECT count(*) FROM (SELECT 1 FROM savings WHERE at < ?1 ORDER BY at LIMIT ?2)),
       (SELECT min(at) FROM spend);
