-- Purpose:   notes what a call told of the key that it was made with: `used`, `worked` or `refused`.
-- Arguments: 1 tenant, 2 provider, 3 version, 4 now, 5 the word, 6 refusals from which on it is disabled, 7 reason,
--            8 the message for those who want to hear that it is disabled.
-- Returns:   failures, state after it; no row where that version is not active any more.
-- Invariant: that a key is used is no change that others have to hear of. A key that is disabled here was not before.
WITH mark AS (
    UPDATE credential_mark SET revision = revision + 1 WHERE $5::text <> 'used' RETURNING revision
), noted AS (
    UPDATE credentials c
    SET used_at = greatest(c.used_at, $4::bigint),
        failures = CASE $5::text WHEN 'refused' THEN c.failures + 1 WHEN 'worked' THEN 0 ELSE c.failures END,
        state = CASE WHEN $5::text = 'refused' AND c.failures + 1 >= $6::integer THEN 'disabled' ELSE c.state END,
        reason = CASE $5::text WHEN 'refused' THEN $7::text WHEN 'worked' THEN NULL ELSE c.reason END,
        revision = coalesce((SELECT revision FROM mark), c.revision)
    WHERE c.tenant = $1 AND c.provider = $2 AND c.version = $3 AND c.state = 'active'
    RETURNING c.failures, c.state
), told AS (
    INSERT INTO webhook_deliveries (endpoint_id, lane, tenant, event, at, due_at, body)
    SELECT e.id, e.id::text, $1::text, 'credential.disabled', $4::bigint, $4::bigint, $8::text
    FROM webhook_endpoints e
    WHERE e.enabled AND e.events & 64 <> 0 AND e.tenant IN ($1::text, '') AND EXISTS (SELECT 1 FROM noted WHERE state = 'disabled')
)
SELECT failures, state FROM noted
