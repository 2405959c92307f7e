-- Purpose:   switches a credential on or off, or deletes it.
-- Arguments: 1 tenant, 2 provider, 3 state, 4 reason.
-- Returns:   nothing; 1 row changed, or 0 where there is none.
-- Invariant: what is deleted holds nothing secret and has a number of its own, and only a new key brings it back.
WITH mark AS (UPDATE credential_mark SET revision = revision + 1 RETURNING revision)
UPDATE credentials c
SET state = $3::text, reason = $4::text, revision = mark.revision, failures = 0,
    version = c.version + ($3::text = 'deleted')::integer,
    kek_id = CASE WHEN $3::text <> 'deleted' THEN c.kek_id END,
    wrapped_key = CASE WHEN $3::text <> 'deleted' THEN c.wrapped_key END,
    ciphertext = CASE WHEN $3::text <> 'deleted' THEN c.ciphertext END,
    hint = CASE WHEN $3::text <> 'deleted' THEN c.hint ELSE '' END
FROM mark
WHERE c.tenant = $1 AND c.provider = $2 AND c.state <> 'deleted'
