-- Purpose:   switches a credential on or off, or deletes it.
-- Arguments: 1 tenant, 2 provider, 3 state, 4 reason.
-- Returns:   nothing; 1 row changed, or 0 where there is none.
-- Invariant: what is deleted holds nothing secret and has a number of its own, and only a new key brings it back.
UPDATE credentials
SET state = ?3, reason = ?4, revision = (SELECT max(revision) + 1 FROM credentials), failures = 0,
    version = version + (?3 = 'deleted'),
    kek_id = CASE WHEN ?3 <> 'deleted' THEN kek_id END,
    wrapped_key = CASE WHEN ?3 <> 'deleted' THEN wrapped_key END,
    ciphertext = CASE WHEN ?3 <> 'deleted' THEN ciphertext END,
    hint = CASE WHEN ?3 <> 'deleted' THEN hint ELSE '' END
WHERE tenant = ?1 AND provider = ?2 AND state <> 'deleted';
