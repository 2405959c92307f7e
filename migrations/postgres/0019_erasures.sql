-- Tenants that were erased. The list is kept for ever: it says who is refused, and which rows are taken away again should a
-- restore bring them back.
CREATE TABLE erasures (
    tenant      text    NOT NULL COLLATE "C" PRIMARY KEY,
    -- What stands for the name in sums of money and in the audit log. Made by chance: nobody can guess one from the other.
    pseudonym   text    NOT NULL COLLATE "C" UNIQUE,
    accepted_at bigint  NOT NULL,
    -- Rows that were taken away, and what was there when the present walk passed.
    erased      bigint  NOT NULL DEFAULT 0,
    found       bigint  NOT NULL DEFAULT 0,
    -- When a whole walk had found nothing; the last time, and how often in a row.
    finished_at bigint,
    checked_at  bigint,
    looks       integer NOT NULL DEFAULT 0 CHECK (looks >= 0),
    -- When it is to be walked for; NULL: not again.
    due_at      bigint
);

-- How far the walk over all tables is, which takes away the rows of all these tenants. Whoever makes a step raises `beat`, and
-- only at the beat that it has seen.
CREATE TABLE erasure_walk (
    one      smallint PRIMARY KEY CHECK (one = 1),
    beat     bigint   NOT NULL DEFAULT 0,
    -- NULL: nobody walks.
    began_at bigint,
    -- The table, and its first block that was not looked at.
    place    text     NOT NULL COLLATE "C" DEFAULT '',
    block    bigint   NOT NULL DEFAULT 0
);
INSERT INTO erasure_walk (one) VALUES (1);

-- The tables that say whose their rows are, partitions one by one. One that is added later is among them by itself.
CREATE FUNCTION erase_tables() RETURNS TABLE (name text, blocks bigint) LANGUAGE sql STABLE SECURITY DEFINER
SET search_path FROM CURRENT AS $$
    SELECT c.relname::text, pg_relation_size(c.oid) / current_setting('block_size')::bigint
    FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'tenant' AND NOT a.attisdropped
    WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind = 'r' AND c.relname NOT IN ('erasures', 'audit_log')
    ORDER BY c.relname
$$;

-- How many rows of a table are a tenant's; keys of requests may belong to one key of a tenant, behind a separator.
CREATE FUNCTION erase_count(name text, whose text) RETURNS bigint LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path FROM CURRENT AS $$
DECLARE
    rows bigint;
BEGIN
    EXECUTE format('SELECT count(*) FROM %I WHERE split_part(tenant, chr(31), 1) = $1', name) INTO rows USING whose;
    RETURN rows;
EXCEPTION
    -- A partition whose day was dropped meanwhile.
    WHEN undefined_table THEN RETURN 0;
END $$;

-- What belongs to these tenants and does not say so in a column `tenant`: found by its owner's name, or by what does say so.
CREATE FUNCTION erase_belongings() RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    DELETE FROM signing_secrets s USING erasures e
    WHERE s.owner = 'tenant:' || e.tenant
          OR s.owner IN (SELECT 'endpoint:' || w.id FROM webhook_endpoints w WHERE w.tenant = e.tenant);
    -- Callers of an identity provider have no row of their own, and are known by what they spent.
    DELETE FROM budgets WHERE scope IN (SELECT 'tenant:' || tenant FROM erasures UNION ALL
                                        SELECT 'key:' || k.id FROM api_keys k JOIN erasures e USING (tenant) UNION ALL
                                        SELECT 'key:' || d.key_id FROM key_days d JOIN erasures e USING (tenant) UNION ALL
                                        SELECT 'key:' || d.key_id FROM key_tail d JOIN erasures e USING (tenant));
    DELETE FROM budget_alerts WHERE scope IN (SELECT 'tenant:' || tenant FROM erasures UNION ALL
                                              SELECT 'key:' || k.id FROM api_keys k JOIN erasures e USING (tenant) UNION ALL
                                              SELECT 'key:' || d.key_id FROM key_days d JOIN erasures e USING (tenant) UNION ALL
                                              SELECT 'key:' || d.key_id FROM key_tail d JOIN erasures e USING (tenant));
    -- What was set for targets that are called with the tenant's own key, and told of their circuits.
    -- A colon of the tenant's is written `%3A` there.
    DELETE FROM targets t USING erasures e
    WHERE right(t.name, length(replace(e.tenant, ':', '%3A')) + 2) = ':@' || replace(e.tenant, ':', '%3A');
    DELETE FROM webhook_circuits c USING erasures e
    WHERE right(c.circuit, length(replace(e.tenant, ':', '%3A')) + 2) = ':@' || replace(e.tenant, ':', '%3A');
    DELETE FROM webhook_circuits c USING erasures e WHERE c.circuit = 'alert:quota:' || e.tenant;
    DELETE FROM tenants t USING erasures e WHERE t.name = e.tenant;
END $$;

-- Takes away what blocks `first` to `upto` of a table have of these tenants. Live jobs stay, and are counted as found: they have to be
-- cancelled first. Sums of money go on under the pseudonym, without the tenant's own words.
CREATE FUNCTION erase_blocks(name text, first bigint, upto bigint) RETURNS void LANGUAGE plpgsql SECURITY DEFINER
SET search_path FROM CURRENT AS $$
DECLARE
    here text := format('t.ctid >= %L::tid AND t.ctid < %L::tid', format('(%s,0)', first), format('(%s,0)', upto));
    counted text := 'UPDATE erasures e SET erased = e.erased + g.gone, found = e.found + g.gone + g.stay
                     FROM (SELECT tenant, sum(gone) AS gone, sum(stay) AS stay FROM met GROUP BY tenant) g WHERE g.tenant = e.tenant';
BEGIN
    CASE name
    WHEN 'jobs' THEN
        EXECUTE format('WITH gone AS (
            DELETE FROM jobs t USING erasures e WHERE %1$s AND t.tenant = e.tenant AND t.standing = 2 RETURNING t.tenant, t.queue
        ), uncounted AS (
            UPDATE queue_totals q SET dead = q.dead - g.letters FROM (SELECT queue, count(*) AS letters FROM gone GROUP BY queue) g
            WHERE q.queue = g.queue AND q.slot = (SELECT min(s.slot) FROM queue_totals s WHERE s.queue = g.queue)
        ), met AS (
            SELECT tenant, 1 AS gone, 0 AS stay FROM gone
            UNION ALL SELECT t.tenant, 0, 1 FROM jobs t JOIN erasures e USING (tenant) WHERE %1$s AND t.standing = 0
        ) %2$s', here, counted);
    WHEN 'cost_days' THEN
        EXECUTE format('WITH gone AS (
            DELETE FROM cost_days t USING erasures e WHERE %s AND t.tenant = e.tenant RETURNING t.*, e.pseudonym
        ), moved AS (
            INSERT INTO cost_tail
                (day, tenant, queue, kind, operation, provider, model, calls, calls_maybe, calls_unpriced, jobs, tokens_in,
                tokens_out, tokens_cached, tokens_cache_write, tokens_reasoning, tokens_cache_write_long, tokens_audio_in,
                tokens_audio_out, spend_nanousd, wasted_nanousd, charge_nanousd, saved_memo_nanousd, saved_cache_nanousd,
                saved_coalesced_nanousd, saved_singleflight_nanousd, saved_answers, saved_unpriced)
            SELECT day, pseudonym, queue, kind, '''', provider, model, calls, calls_maybe, calls_unpriced, jobs, tokens_in,
                tokens_out, tokens_cached, tokens_cache_write, tokens_reasoning, tokens_cache_write_long, tokens_audio_in,
                tokens_audio_out, spend_nanousd, wasted_nanousd, charge_nanousd, saved_memo_nanousd, saved_cache_nanousd,
                saved_coalesced_nanousd, saved_singleflight_nanousd, saved_answers, saved_unpriced
            FROM gone
        ), met AS (SELECT tenant, 1 AS gone, 0 AS stay FROM gone) %s', here, counted);
    WHEN 'cost_tail' THEN
        EXECUTE format('WITH gone AS (
            UPDATE cost_tail t SET tenant = e.pseudonym, operation = '''' FROM erasures e WHERE %s AND t.tenant = e.tenant
            RETURNING e.tenant
        ), met AS (SELECT tenant, 1 AS gone, 0 AS stay FROM gone) %s', here, counted);
    WHEN 'archive_objects' THEN
        EXECUTE format('WITH gone AS (
            DELETE FROM archive_objects t USING erasures e WHERE %s AND t.tenant = e.tenant
            RETURNING t.tenant, t.archive_id, t.letters, t.bytes, t.cost_nanousd
        ), uncounted AS (
            UPDATE archives a SET objects = a.objects - g.objects, letters = a.letters - g.letters, bytes = a.bytes - g.bytes,
                                  cost_nanousd = a.cost_nanousd - g.cost_nanousd
            FROM (SELECT archive_id, count(*) AS objects, sum(letters) AS letters, sum(bytes) AS bytes,
                         sum(cost_nanousd) AS cost_nanousd FROM gone GROUP BY archive_id) g
            WHERE g.archive_id = a.id
        ), met AS (SELECT tenant, 1 AS gone, 0 AS stay FROM gone) %s', here, counted);
    WHEN 'webhook_deliveries' THEN
        EXECUTE format('WITH gone AS (
            DELETE FROM webhook_deliveries t USING erasures e WHERE %s AND t.tenant = e.tenant RETURNING e.tenant, t.seq
        ), tries AS (DELETE FROM webhook_attempts a USING gone WHERE a.delivery = gone.seq),
        met AS (SELECT tenant, 1 AS gone, 0 AS stay FROM gone) %s', here, counted);
    ELSE
        EXECUTE format('WITH gone AS (
            DELETE FROM %I t USING erasures e WHERE %s AND split_part(t.tenant, chr(31), 1) = e.tenant %s RETURNING e.tenant
        ), met AS (SELECT tenant, 1 AS gone, 0 AS stay FROM gone) %s', name, here,
            -- What a live job runs with goes behind it.
            CASE WHEN name LIKE 'payloads%' THEN 'AND NOT EXISTS (SELECT 1 FROM jobs j WHERE j.id = t.id AND j.standing = 0)' ELSE '' END,
            counted);
    END CASE;
EXCEPTION
    WHEN undefined_table THEN NULL;
END $$;

-- One step of the walk, of at most `most` blocks: begins it, goes on, or ends it. `waits`: when those for whom nothing was found are
-- looked at again, after the first such walk, the second, and so on. Returns the new beat and when the walk began (NULL: it has
-- ended); no row where somebody else has made a step.
CREATE FUNCTION erase_step(seen bigint, now_ms bigint, most bigint, waits bigint[])
RETURNS TABLE (beat_now bigint, walk_began_at bigint)
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    walk erasure_walk;
    leaf record;
    upto bigint;
    left_over bigint := most;
    is_over boolean := TRUE;
BEGIN
    SELECT * INTO walk FROM erasure_walk WHERE beat = seen FOR UPDATE;
    IF NOT FOUND THEN RETURN; END IF;
    IF walk.began_at IS NULL THEN
        UPDATE erasures e SET found = 0 WHERE e.found <> 0;
        PERFORM erase_belongings();
        walk.began_at := now_ms;
        walk.place := '';
        walk.block := 0;
    END IF;
    FOR leaf IN
        SELECT t.name, t.blocks FROM erase_tables() t
        WHERE t.name COLLATE "C" >= walk.place COLLATE "C" ORDER BY t.name COLLATE "C"
    LOOP
        IF leaf.name <> walk.place THEN
            walk.place := leaf.name;
            walk.block := 0;
        END IF;
        IF left_over <= 0 THEN
            is_over := FALSE;
            EXIT;
        END IF;
        upto := least(walk.block + left_over, leaf.blocks);
        IF upto > walk.block THEN
            PERFORM erase_blocks(leaf.name, walk.block, upto);
            left_over := left_over - (upto - walk.block);
            walk.block := upto;
        END IF;
        IF walk.block < leaf.blocks THEN
            is_over := FALSE;
            EXIT;
        END IF;
    END LOOP;
    IF is_over THEN
        UPDATE erasures e SET
            finished_at = CASE WHEN e.found = 0 THEN coalesce(e.finished_at, now_ms) END,
            checked_at = CASE WHEN e.found = 0 THEN now_ms ELSE e.checked_at END,
            looks = CASE WHEN e.found = 0 THEN e.looks + 1 ELSE 0 END,
            due_at = CASE WHEN e.found = 0 THEN now_ms + waits[e.looks + 1] ELSE now_ms END
        WHERE e.found > 0 OR e.due_at <= walk.began_at;
        walk.began_at := NULL;
    END IF;
    UPDATE erasure_walk w SET beat = w.beat + 1, began_at = walk.began_at, place = walk.place, block = walk.block;
    RETURN QUERY SELECT w.beat, w.began_at FROM erasure_walk w;
END $$;

-- They act with the owner's rights, so not everybody may call them.
REVOKE ALL ON FUNCTION erase_tables(), erase_count(text, text), erase_belongings(), erase_blocks(text, bigint, bigint),
                       erase_step(bigint, bigint, bigint, bigint[]) FROM PUBLIC;

SELECT guard_tenants();
