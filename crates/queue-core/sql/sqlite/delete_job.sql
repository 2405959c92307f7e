-- Purpose:   takes a job away that has ended.
-- Arguments: 1 id, 2 the epoch at which it was found.
-- Returns:   seq, queue, tenant, standing; no row for a job that lives, had another life
--            since, or is not there.
-- Invariant: `delete_payload`, `delete_result`, `delete_attempts` and `delete_memos` take the rest in the same transaction.
--            Money stays.
DELETE FROM jobs WHERE id = ?1 AND epoch = ?2 AND standing <> 0 RETURNING seq, queue, tenant, standing;
