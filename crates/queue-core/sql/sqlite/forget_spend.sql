-- Purpose:   forgets the oldest rows of `spend`.
-- Arguments: 1 the moment before which they are, 2 rows at most.
-- Returns:   nothing; as many rows changed as went.
-- Invariant: what they come to stays in the sums of their days, which nothing is taken from here.
DELETE FROM spend WHERE rowid IN (SELECT rowid FROM spend WHERE at < ?1 ORDER BY at LIMIT ?2);
