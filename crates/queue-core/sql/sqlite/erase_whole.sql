-- Purpose:   the first part of the walk: what the small tables have of erased tenants, and those that are found by the tenant's name.
-- Arguments: none; a script of several statements.
-- Returns:   nothing.
-- Invariant: what opens secrets goes here, too, where a restore has brought it back. A credential keeps its number, under the pseudonym: the
--            next number is the largest one and one. Sums of money go on under the
--            pseudonym, without the tenant's own words.
UPDATE erasures SET found = 0 WHERE found <> 0;
UPDATE erasures SET found = found
    + (SELECT count(*) FROM api_keys k WHERE k.tenant = erasures.tenant)
    + (SELECT count(*) FROM credentials c WHERE c.tenant = erasures.tenant)
    + (SELECT count(*) FROM webhook_endpoints w WHERE w.tenant = erasures.tenant)
    + (SELECT count(*) FROM cost_days d WHERE d.tenant = erasures.tenant)
    + (SELECT count(*) FROM schedules s WHERE s.tenant = erasures.tenant)
    + (SELECT count(*) FROM key_days d WHERE d.tenant = erasures.tenant)
    + (SELECT count(*) FROM archive_objects o WHERE o.tenant = erasures.tenant)
    + (SELECT count(*) FROM tenants t WHERE t.name = erasures.tenant);
UPDATE erasures SET erased = erased + found;
UPDATE archives
SET objects = archives.objects - gone.objects, letters = archives.letters - gone.letters, bytes = archives.bytes - gone.bytes,
    cost_nanousd = archives.cost_nanousd - gone.cost_nanousd
FROM (
    SELECT archive_id, count(*) AS objects, sum(letters) AS letters, sum(bytes) AS bytes, sum(cost_nanousd) AS cost_nanousd
    FROM archive_objects JOIN erasures USING (tenant) GROUP BY archive_id
) AS gone
WHERE gone.archive_id = archives.id;
DELETE FROM schedules WHERE tenant IN (SELECT tenant FROM erasures);
DELETE FROM archive_objects WHERE tenant IN (SELECT tenant FROM erasures);
DELETE FROM signing_secrets
WHERE owner IN (SELECT 'tenant:' || tenant FROM erasures)
      OR owner IN (SELECT 'endpoint:' || lower(printf('%s-%s-%s-%s-%s', substr(hex(id), 1, 8), substr(hex(id), 9, 4),
                                                      substr(hex(id), 13, 4), substr(hex(id), 17, 4), substr(hex(id), 21)))
                   FROM webhook_endpoints JOIN erasures USING (tenant));
DELETE FROM webhook_endpoints WHERE tenant IN (SELECT tenant FROM erasures);
DELETE FROM budgets WHERE scope IN (SELECT 'tenant:' || tenant FROM erasures UNION ALL
                                    SELECT 'key:' || id FROM api_keys JOIN erasures USING (tenant) UNION ALL
                                    SELECT 'key:' || key_id FROM key_days JOIN erasures USING (tenant));
DELETE FROM budget_alerts WHERE scope IN (SELECT 'tenant:' || tenant FROM erasures UNION ALL
                                          SELECT 'key:' || id FROM api_keys JOIN erasures USING (tenant) UNION ALL
                                          SELECT 'key:' || key_id FROM key_days JOIN erasures USING (tenant));
DELETE FROM key_days WHERE tenant IN (SELECT tenant FROM erasures);
DELETE FROM api_keys WHERE tenant IN (SELECT tenant FROM erasures);
UPDATE credentials
SET state = 'deleted', reason = NULL, version = version + 1, failures = 0, kek_id = NULL, wrapped_key = NULL,
    ciphertext = NULL, hint = '',
    revision = (SELECT max(revision) FROM credentials)
               + (SELECT count(*) FROM credentials c JOIN erasures e USING (tenant)
                  WHERE (c.tenant, c.provider) <= (credentials.tenant, credentials.provider))
WHERE tenant IN (SELECT tenant FROM erasures) AND state <> 'deleted';
UPDATE OR REPLACE credentials SET tenant = (SELECT pseudonym FROM erasures e WHERE e.tenant = credentials.tenant)
WHERE tenant IN (SELECT tenant FROM erasures);
DELETE FROM dead_causes WHERE letters = 0 AND tenant IN (SELECT tenant FROM erasures);
DELETE FROM tenant_totals WHERE live = 0 AND tenant IN (SELECT tenant FROM erasures);
DELETE FROM targets
WHERE instr(name, ':@') > 0 AND substr(name, instr(name, ':@') + 2) IN (SELECT replace(tenant, ':', '%3A') FROM erasures);
DELETE FROM webhook_circuits
WHERE instr(circuit, ':@') > 0 AND substr(circuit, instr(circuit, ':@') + 2) IN (SELECT replace(tenant, ':', '%3A') FROM erasures);
DELETE FROM webhook_circuits WHERE circuit IN (SELECT 'alert:quota:' || tenant FROM erasures);
DELETE FROM tenants WHERE name IN (SELECT tenant FROM erasures);
INSERT INTO cost_days
    (day, tenant, queue, kind, operation, provider, model, calls, calls_maybe, calls_unpriced, jobs, tokens_in, tokens_out,
    tokens_cached, tokens_cache_write, tokens_reasoning, tokens_cache_write_long, tokens_audio_in, tokens_audio_out,
    spend_nanousd, wasted_nanousd, charge_nanousd, saved_memo_nanousd, saved_cache_nanousd, saved_coalesced_nanousd,
    saved_singleflight_nanousd, saved_answers, saved_unpriced)
SELECT day, e.pseudonym, queue, kind, '', provider, model, sum(calls), sum(calls_maybe), sum(calls_unpriced), sum(jobs),
    sum(tokens_in), sum(tokens_out), sum(tokens_cached), sum(tokens_cache_write), sum(tokens_reasoning),
    sum(tokens_cache_write_long), sum(tokens_audio_in), sum(tokens_audio_out), sum(spend_nanousd), sum(wasted_nanousd),
    sum(charge_nanousd), sum(saved_memo_nanousd), sum(saved_cache_nanousd), sum(saved_coalesced_nanousd),
    sum(saved_singleflight_nanousd), sum(saved_answers), sum(saved_unpriced)
FROM cost_days d JOIN erasures e USING (tenant)
WHERE TRUE
GROUP BY day, e.pseudonym, queue, kind, provider, model
ON CONFLICT (day, tenant, queue, kind, operation, provider, model) DO UPDATE
SET calls = calls + excluded.calls, calls_maybe = calls_maybe + excluded.calls_maybe,
    calls_unpriced = calls_unpriced + excluded.calls_unpriced, jobs = jobs + excluded.jobs,
    tokens_in = tokens_in + excluded.tokens_in, tokens_out = tokens_out + excluded.tokens_out,
    tokens_cached = tokens_cached + excluded.tokens_cached,
    tokens_cache_write = tokens_cache_write + excluded.tokens_cache_write,
    tokens_reasoning = tokens_reasoning + excluded.tokens_reasoning,
    tokens_cache_write_long = tokens_cache_write_long + excluded.tokens_cache_write_long,
    tokens_audio_in = tokens_audio_in + excluded.tokens_audio_in,
    tokens_audio_out = tokens_audio_out + excluded.tokens_audio_out,
    spend_nanousd = spend_nanousd + excluded.spend_nanousd, wasted_nanousd = wasted_nanousd + excluded.wasted_nanousd,
    charge_nanousd = charge_nanousd + excluded.charge_nanousd,
    saved_memo_nanousd = saved_memo_nanousd + excluded.saved_memo_nanousd,
    saved_cache_nanousd = saved_cache_nanousd + excluded.saved_cache_nanousd,
    saved_coalesced_nanousd = saved_coalesced_nanousd + excluded.saved_coalesced_nanousd,
    saved_singleflight_nanousd = saved_singleflight_nanousd + excluded.saved_singleflight_nanousd,
    saved_answers = saved_answers + excluded.saved_answers, saved_unpriced = saved_unpriced + excluded.saved_unpriced;
DELETE FROM cost_days WHERE tenant IN (SELECT tenant FROM erasures);
