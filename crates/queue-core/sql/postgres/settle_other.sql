-- Purpose:   ends attempts without a result: retries, releases and dead letters, with the attempt and, for the dead,
--            the freeing of the unique key.
-- Arguments: 1 ids, in order, 2 epochs of the claims, 3 started_at, 4 finished_at, 5 sessions, 6 served_by, 7 standings
--            after it (0 or 2), 8 outcomes, 9 next run_at or NULL, 10 errors, 11 their classes, 12 their signatures,
--            13 calls, 14 tokens_in, 15 tokens_out, 16 tokens_cached, 17 tokens_cache_write, 18 tokens_reasoning,
--            19 cost_nanousd, 20 cost_unknown, 21 the target of its lane from now on
--            or NULL, 23 how many ms after this settle it is due again, where 9 is NULL, or NULL; arrays of one length;
--            22 the incarnation in which the attempts began.
-- Returns:   id, queue, tenant, run_at, epoch after it of the jobs that were live at the claimed epoch; the rest is fenced.
-- Invariant: changes only a row that is live at the claimed epoch in this life of the journal. A release spends no
--            attempt. The last error stays where there is no newer one. How long is counted by the server's clock and not
--            by that of the process that asks.
WITH done AS (
    UPDATE jobs j
    SET standing = e.standing,
        epoch = j.epoch + (e.standing = 0)::integer,
        attempts = j.attempts + (e.outcome <> 'release')::integer,
        releases = CASE WHEN e.outcome = 'release' THEN j.releases + 1 ELSE 0 END,
        recoveries = 0,
        run_at = coalesce(e.run_at, (extract(epoch FROM clock_timestamp()) * 1000)::bigint + e.wait_ms, j.run_at),
        target = coalesce(e.target, j.target),
        finished_at = CASE WHEN e.standing = 0 THEN NULL ELSE e.finished_at END,
        error = coalesce(e.error, j.error),
        error_class = coalesce(e.error_class, j.error_class),
        error_signature = coalesce(e.error_signature, j.error_signature),
        served_by = coalesce(e.served_by, j.served_by),
        calls = j.calls + e.calls,
        tokens_in = j.tokens_in + e.tokens_in,
        tokens_out = j.tokens_out + e.tokens_out,
        tokens_cached = j.tokens_cached + e.tokens_cached,
        tokens_cache_write = j.tokens_cache_write + e.tokens_cache_write,
        tokens_reasoning = j.tokens_reasoning + e.tokens_reasoning,
        cost_nanousd = j.cost_nanousd + e.cost_nanousd,
        cost_unknown = j.cost_unknown OR e.cost_unknown
    FROM unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::bigint[], $5::uuid[], $6::text[], $7::smallint[],
                $8::text[], $9::bigint[], $10::text[], $11::text[], $12::text[], $13::bigint[], $14::bigint[],
                $15::bigint[], $16::bigint[], $17::bigint[], $18::bigint[], $19::bigint[], $20::boolean[], $21::text[],
                $23::bigint[])
         AS e (id, epoch, started_at, finished_at, session, served_by, standing, outcome, run_at, error, error_class,
               error_signature, calls, tokens_in, tokens_out, tokens_cached, tokens_cache_write, tokens_reasoning,
               cost_nanousd, cost_unknown, target, wait_ms)
    WHERE j.id = ANY (ARRAY[e.id]) AND j.epoch = e.epoch AND j.standing < 1
      AND EXISTS (SELECT 1 FROM meta WHERE incarnation = $22)
    RETURNING j.id, j.tenant, j.queue, j.webhook, '' AS everybody, j.run_at, j.epoch, j.unique_key, e.epoch AS claimed_epoch,
              j.attempts + (e.outcome = 'release')::integer AS number, e.outcome, e.session, e.started_at,
              e.finished_at AS ended_at, e.error AS this_error, e.standing
), noted AS (
    INSERT INTO attempts (job_id, tenant, epoch, number, outcome, session, started_at, finished_at, error)
    SELECT id, tenant, claimed_epoch, number, outcome, session, started_at, ended_at, this_error FROM done
), told AS (
    INSERT INTO webhook_deliveries (endpoint_id, url, lane, tenant, event, job_id, at, due_at)
    SELECT e.id, NULL, e.id::text, d.tenant, 'job.dead', d.id, d.ended_at, d.ended_at
    FROM done d JOIN webhook_endpoints e ON e.tenant = d.tenant
    WHERE e.enabled AND e.events & 2 <> 0 AND d.standing = 2
    UNION ALL
    SELECT e.id, NULL, e.id::text, d.tenant, 'job.dead', d.id, d.ended_at, d.ended_at
    FROM done d JOIN webhook_endpoints e ON e.tenant = d.everybody
    WHERE e.enabled AND e.events & 2 <> 0 AND d.standing = 2
    UNION ALL
    SELECT NULL, d.webhook, 'own ' || d.tenant || ' ' || split_part(d.webhook, '/', 3), d.tenant, 'job.dead', d.id, d.ended_at, d.ended_at
    FROM done d
    WHERE d.webhook IS NOT NULL AND d.standing = 2
), freed AS (
    DELETE FROM unique_keys k USING done d
    WHERE d.standing = 2 AND d.unique_key IS NOT NULL
      AND k.tenant = d.tenant AND k.key = d.unique_key AND k.job_id = d.id
)
SELECT id, queue, tenant, run_at, epoch FROM done
