-- Purpose:   holds the rows that a transaction is about to change, in the order of their ids.
-- Arguments: 1 ids.
-- Returns:   how many rows there are.
-- Invariant: taken before the statements that would meet the same rows in another order: batches wait for each other
--            in one direction only. Waits for whoever changes a row now.
SELECT count(*) FROM (SELECT 1 FROM jobs WHERE id = ANY ($1::uuid[]) ORDER BY id FOR UPDATE) AS held
