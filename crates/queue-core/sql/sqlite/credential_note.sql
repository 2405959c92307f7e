-- Purpose:   notes what a call told of the key that it was made with: `used`, `worked` or `refused`.
-- Arguments: 1 tenant, 2 provider, 3 version, 4 now, 5 the word, 6 refusals from which on it is disabled, 7 reason.
-- Returns:   failures, state after it; no row where that version is not active any more.
-- Invariant: that a key is used is no change that others have to hear of.
UPDATE credentials
SET used_at = max(coalesce(used_at, ?4), ?4),
    failures = CASE ?5 WHEN 'refused' THEN failures + 1 WHEN 'worked' THEN 0 ELSE failures END,
    state = CASE WHEN ?5 = 'refused' AND failures + 1 >= ?6 THEN 'disabled' ELSE state END,
    reason = CASE ?5 WHEN 'refused' THEN ?7 WHEN 'worked' THEN NULL ELSE reason END,
    revision = CASE WHEN ?5 = 'used' THEN revision ELSE (SELECT max(revision) + 1 FROM credentials) END
WHERE tenant = ?1 AND provider = ?2 AND version = ?3 AND state = 'active'
RETURNING failures, state;
