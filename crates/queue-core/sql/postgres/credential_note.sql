-- Purpose:   notes what a call told of the key that it was made with: `used`, `worked` or `refused`.
-- Arguments: 1 tenant, 2 provider, 3 version, 4 now, 5 the word, 6 refusals from which on it is disabled, 7 reason.
-- Returns:   failures, state after it; no row where that version is not active any more.
-- Invariant: that a key is used is no change that others have to hear of.
WITH mark AS (UPDATE credential_mark SET revision = revision + 1 WHERE $5::text <> 'used' RETURNING revision)
UPDATE credentials c
SET used_at = greatest(c.used_at, $4::bigint),
    failures = CASE $5::text WHEN 'refused' THEN c.failures + 1 WHEN 'worked' THEN 0 ELSE c.failures END,
    state = CASE WHEN $5::text = 'refused' AND c.failures + 1 >= $6::integer THEN 'disabled' ELSE c.state END,
    reason = CASE $5::text WHEN 'refused' THEN $7::text WHEN 'worked' THEN NULL ELSE c.reason END,
    revision = coalesce((SELECT revision FROM mark), c.revision)
WHERE c.tenant = $1 AND c.provider = $2 AND c.version = $3 AND c.state = 'active'
RETURNING c.failures, c.state
