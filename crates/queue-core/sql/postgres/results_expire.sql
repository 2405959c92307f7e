-- Purpose:   takes results away whose time is over.
-- Arguments: 1 ids.
-- Returns:   nothing; as many rows changed as results went.
-- Invariant: the job stays a success. No JSON text is empty: an empty result is one that is gone.
UPDATE settled_jobs SET result = '' WHERE id = ANY ($1::uuid[]) AND standing = 1 AND octet_length(result) > 0
