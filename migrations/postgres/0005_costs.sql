-- Costs that stay fast: what calls, charges and savings come to by UTC day. And what a report needs to know of a call:
-- its service tier, audio and long-kept cache writes, whether it was its job's first, whether it was for nothing.
--
-- Nobody adds to a shared counter while jobs run. A statement that writes money also writes its sums, one line for each
-- day and label, to `cost_tail`, as part of itself: whoever sees the money sees the line. The scheduler moves lines from
-- there to `cost_days`. There is no mark of how far it has come, so a transaction that commits late is not skipped, and
-- since a line is deleted by the statement that adds it, it is added once. Reports read both tables.

-- Constant defaults: the table is not written anew.
ALTER TABLE spend
    ADD COLUMN tokens_cache_write_long bigint NOT NULL DEFAULT 0,
    ADD COLUMN tokens_audio_in         bigint NOT NULL DEFAULT 0,
    ADD COLUMN tokens_audio_out        bigint NOT NULL DEFAULT 0,
    ADD COLUMN tier                    text   NOT NULL COLLATE "C" DEFAULT 'standard'
               CHECK (tier IN ('standard', 'batch', 'flex', 'priority', 'other')),
    -- The first row of its job: summing these counts jobs, each once.
    ADD COLUMN opens_job               boolean NOT NULL DEFAULT FALSE,
    -- Why an answer is of no use: another one to the same call was there, or its job is a dead letter. A call without an
    -- answer (`status`) is of no use anyway.
    ADD COLUMN waste                   text COLLATE "C" CHECK (waste IN ('superseded', 'died'));

-- Answers that needed no call, at what the call would have cost. Nobody paid for these.
CREATE TABLE savings (
    job_id        uuid   NOT NULL,
    call_id       uuid   NOT NULL,
    epoch         bigint NOT NULL,
    reason        text   NOT NULL COLLATE "C" CHECK (reason IN ('memo', 'cache', 'coalesced', 'singleflight')),
    tenant        text   NOT NULL COLLATE "C",
    queue         text   NOT NULL COLLATE "C",
    kind          text   NOT NULL COLLATE "C",
    operation     text   COLLATE "C",
    provider      text   NOT NULL COLLATE "C",
    model         text   NOT NULL COLLATE "C",
    tokens_in     bigint NOT NULL,
    tokens_out    bigint NOT NULL,
    -- NULL where nobody knows the price.
    saved_nanousd bigint,
    at            bigint NOT NULL,
    PRIMARY KEY (job_id, call_id, epoch, reason)
);

CREATE INDEX savings_at ON savings (at);

-- `day` is the start of a UTC day in milliseconds. Charges have no provider and no model; no operation is ''.
CREATE TABLE cost_days (
    day                        bigint NOT NULL,
    tenant                     text   NOT NULL COLLATE "C",
    queue                      text   NOT NULL COLLATE "C",
    kind                       text   NOT NULL COLLATE "C",
    operation                  text   NOT NULL COLLATE "C",
    provider                   text   NOT NULL COLLATE "C",
    model                      text   NOT NULL COLLATE "C",
    calls                      bigint NOT NULL DEFAULT 0,
    calls_maybe                bigint NOT NULL DEFAULT 0,
    calls_unpriced             bigint NOT NULL DEFAULT 0,
    jobs                       bigint NOT NULL DEFAULT 0,
    tokens_in                  bigint NOT NULL DEFAULT 0,
    tokens_out                 bigint NOT NULL DEFAULT 0,
    tokens_cached              bigint NOT NULL DEFAULT 0,
    tokens_cache_write         bigint NOT NULL DEFAULT 0,
    tokens_reasoning           bigint NOT NULL DEFAULT 0,
    tokens_cache_write_long    bigint NOT NULL DEFAULT 0,
    tokens_audio_in            bigint NOT NULL DEFAULT 0,
    tokens_audio_out           bigint NOT NULL DEFAULT 0,
    spend_nanousd              bigint NOT NULL DEFAULT 0,
    wasted_nanousd             bigint NOT NULL DEFAULT 0,
    charge_nanousd             bigint NOT NULL DEFAULT 0,
    saved_memo_nanousd         bigint NOT NULL DEFAULT 0,
    saved_cache_nanousd        bigint NOT NULL DEFAULT 0,
    saved_coalesced_nanousd    bigint NOT NULL DEFAULT 0,
    saved_singleflight_nanousd bigint NOT NULL DEFAULT 0,
    saved_answers              bigint NOT NULL DEFAULT 0,
    saved_unpriced             bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (day, tenant, queue, kind, operation, provider, model)
)
WITH (fillfactor = 70);

-- Lines on their way into `cost_days`. They live for seconds; a change of a sum (an answer that turns out to be for
-- nothing) is a line, too, so numbers may be negative here.
CREATE TABLE cost_tail (
    LIKE cost_days INCLUDING DEFAULTS,
    id bigint NOT NULL GENERATED ALWAYS AS IDENTITY PRIMARY KEY
)
WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_insert_scale_factor = 0.1,
      autovacuum_vacuum_cost_delay = 0, vacuum_truncate = FALSE);

-- The money row by row, in the columns of `cost_days` but with its moment: what the lines are sums of.
CREATE VIEW cost_lines AS
SELECT at, tenant, queue, kind, coalesce(operation, '') AS operation, provider, model, 1::bigint AS calls,
       (billed = 'maybe')::integer::bigint AS calls_maybe,
       (billed = 'yes' AND cost_nanousd IS NULL)::integer::bigint AS calls_unpriced, opens_job::integer::bigint AS jobs,
       tokens_in, tokens_out, tokens_cached, tokens_cache_write, tokens_reasoning, tokens_cache_write_long,
       tokens_audio_in, tokens_audio_out, coalesce(cost_nanousd, 0) AS spend_nanousd,
       CASE WHEN status <> 'ok' OR waste IS NOT NULL THEN coalesce(cost_nanousd, 0) ELSE 0 END AS wasted_nanousd,
       0::bigint AS charge_nanousd, 0::bigint AS saved_memo_nanousd, 0::bigint AS saved_cache_nanousd,
       0::bigint AS saved_coalesced_nanousd, 0::bigint AS saved_singleflight_nanousd, 0::bigint AS saved_answers,
       0::bigint AS saved_unpriced
FROM spend
UNION ALL
SELECT at, tenant, queue, kind, coalesce(operation, ''), '', '', 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
       charge_nanousd, 0, 0, 0, 0, 0, 0
FROM charges
UNION ALL
SELECT at, tenant, queue, kind, coalesce(operation, ''), provider, model, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
       CASE WHEN reason = 'memo' THEN coalesce(saved_nanousd, 0) ELSE 0 END,
       CASE WHEN reason = 'cache' THEN coalesce(saved_nanousd, 0) ELSE 0 END,
       CASE WHEN reason = 'coalesced' THEN coalesce(saved_nanousd, 0) ELSE 0 END,
       CASE WHEN reason = 'singleflight' THEN coalesce(saved_nanousd, 0) ELSE 0 END,
       1, (saved_nanousd IS NULL)::integer
FROM savings;

-- What is there already.
UPDATE spend s SET opens_job = TRUE
FROM (SELECT DISTINCT ON (job_id) job_id, call_id, epoch FROM spend ORDER BY job_id, seq) AS first
WHERE s.job_id = first.job_id AND s.call_id = first.call_id AND s.epoch = first.epoch;

UPDATE spend s SET waste = 'superseded'
WHERE status = 'ok' AND EXISTS (
    SELECT 1 FROM spend earlier
    WHERE earlier.job_id = s.job_id AND earlier.call_id = s.call_id AND earlier.status = 'ok' AND earlier.seq < s.seq
);

UPDATE spend s SET waste = 'died'
FROM jobs j
WHERE j.id = s.job_id AND j.standing > 1 AND s.status = 'ok' AND s.waste IS NULL;

INSERT INTO cost_days
SELECT at - at % 86400000 AS day, tenant, queue, kind, operation, provider, model, sum(calls), sum(calls_maybe),
       sum(calls_unpriced), sum(jobs), sum(tokens_in), sum(tokens_out), sum(tokens_cached), sum(tokens_cache_write),
       sum(tokens_reasoning), sum(tokens_cache_write_long), sum(tokens_audio_in), sum(tokens_audio_out),
       sum(spend_nanousd), sum(wasted_nanousd), sum(charge_nanousd), sum(saved_memo_nanousd), sum(saved_cache_nanousd),
       sum(saved_coalesced_nanousd), sum(saved_singleflight_nanousd), sum(saved_answers), sum(saved_unpriced)
FROM cost_lines
GROUP BY 1, 2, 3, 4, 5, 6, 7;

-- From here on, whoever writes money writes its lines, also a program that does not know of them.
CREATE FUNCTION note_spend() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO cost_tail (day, tenant, queue, kind, operation, provider, model, calls, calls_maybe, calls_unpriced, jobs,
                           tokens_in, tokens_out, tokens_cached, tokens_cache_write, tokens_reasoning,
                           tokens_cache_write_long, tokens_audio_in, tokens_audio_out, spend_nanousd, wasted_nanousd)
    SELECT at - at % 86400000, tenant, queue, kind, coalesce(operation, ''), provider, model, count(*),
           count(*) FILTER (WHERE billed = 'maybe'),
           count(*) FILTER (WHERE billed = 'yes' AND cost_nanousd IS NULL), count(*) FILTER (WHERE opens_job),
           sum(tokens_in), sum(tokens_out), sum(tokens_cached), sum(tokens_cache_write), sum(tokens_reasoning),
           sum(tokens_cache_write_long), sum(tokens_audio_in), sum(tokens_audio_out), sum(coalesce(cost_nanousd, 0)),
           sum(CASE WHEN status <> 'ok' OR waste IS NOT NULL THEN coalesce(cost_nanousd, 0) ELSE 0 END)
    FROM added
    GROUP BY 1, 2, 3, 4, 5, 6, 7;
    RETURN NULL;
END $$;

CREATE TRIGGER spend_noted AFTER INSERT ON spend REFERENCING NEW TABLE AS added
FOR EACH STATEMENT EXECUTE FUNCTION note_spend();

-- Of a row of `spend` only `waste` ever changes.
CREATE FUNCTION note_waste() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO cost_tail (day, tenant, queue, kind, operation, provider, model, wasted_nanousd)
    SELECT at - at % 86400000, tenant, queue, kind, coalesce(operation, ''), provider, model, sum(wasted)
    FROM (
        SELECT at, tenant, queue, kind, operation, provider, model, cost_nanousd AS wasted
        FROM changed WHERE status = 'ok' AND waste IS NOT NULL AND cost_nanousd IS NOT NULL
        UNION ALL
        SELECT at, tenant, queue, kind, operation, provider, model, -cost_nanousd
        FROM before WHERE status = 'ok' AND waste IS NOT NULL AND cost_nanousd IS NOT NULL
    ) AS moved
    GROUP BY 1, 2, 3, 4, 5, 6, 7
    HAVING sum(wasted) <> 0;
    RETURN NULL;
END $$;

CREATE TRIGGER waste_noted AFTER UPDATE ON spend REFERENCING OLD TABLE AS before NEW TABLE AS changed
FOR EACH STATEMENT EXECUTE FUNCTION note_waste();

CREATE FUNCTION note_charges() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO cost_tail (day, tenant, queue, kind, operation, provider, model, charge_nanousd)
    SELECT at - at % 86400000, tenant, queue, kind, coalesce(operation, ''), '', '', sum(charge_nanousd)
    FROM added
    GROUP BY 1, 2, 3, 4, 5;
    RETURN NULL;
END $$;

CREATE TRIGGER charges_noted AFTER INSERT ON charges REFERENCING NEW TABLE AS added
FOR EACH STATEMENT EXECUTE FUNCTION note_charges();

CREATE FUNCTION note_savings() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO cost_tail (day, tenant, queue, kind, operation, provider, model, saved_memo_nanousd,
                           saved_cache_nanousd, saved_coalesced_nanousd, saved_singleflight_nanousd, saved_answers,
                           saved_unpriced)
    SELECT at - at % 86400000, tenant, queue, kind, coalesce(operation, ''), provider, model,
           coalesce(sum(saved_nanousd) FILTER (WHERE reason = 'memo'), 0),
           coalesce(sum(saved_nanousd) FILTER (WHERE reason = 'cache'), 0),
           coalesce(sum(saved_nanousd) FILTER (WHERE reason = 'coalesced'), 0),
           coalesce(sum(saved_nanousd) FILTER (WHERE reason = 'singleflight'), 0), count(*),
           count(*) FILTER (WHERE saved_nanousd IS NULL)
    FROM added
    GROUP BY 1, 2, 3, 4, 5, 6, 7;
    RETURN NULL;
END $$;

CREATE TRIGGER savings_noted AFTER INSERT ON savings REFERENCING NEW TABLE AS added
FOR EACH STATEMENT EXECUTE FUNCTION note_savings();

-- For people who ask in SQL. These three are stable: columns are only ever added at the end.

-- Sums by day and label, whole UTC days; money as integer nano-USD and as dollars.
CREATE VIEW longshore_costs AS
SELECT to_timestamp(day / 1000) AT TIME ZONE 'UTC' AS day, tenant, queue, kind, operation, provider, model,
       sum(calls)::bigint AS calls, sum(calls_maybe)::bigint AS calls_maybe,
       sum(calls_unpriced)::bigint AS calls_unpriced, sum(jobs)::bigint AS jobs, sum(tokens_in)::bigint AS tokens_in,
       sum(tokens_out)::bigint AS tokens_out, sum(tokens_cached)::bigint AS tokens_cached,
       sum(tokens_cache_write)::bigint AS tokens_cache_write, sum(tokens_reasoning)::bigint AS tokens_reasoning,
       sum(spend_nanousd)::bigint AS spend_nanousd, sum(wasted_nanousd)::bigint AS wasted_nanousd,
       sum(charge_nanousd)::bigint AS charge_nanousd,
       sum(saved_memo_nanousd + saved_cache_nanousd + saved_coalesced_nanousd + saved_singleflight_nanousd)::bigint
           AS saved_nanousd,
       (sum(spend_nanousd) * 0.000000001)::numeric(28, 9) AS spend_usd,
       (sum(charge_nanousd) * 0.000000001)::numeric(28, 9) AS charge_usd
FROM (
    SELECT * FROM cost_days
    UNION ALL
    SELECT day, tenant, queue, kind, operation, provider, model, calls, calls_maybe, calls_unpriced, jobs, tokens_in,
           tokens_out, tokens_cached, tokens_cache_write, tokens_reasoning, tokens_cache_write_long, tokens_audio_in,
           tokens_audio_out, spend_nanousd, wasted_nanousd, charge_nanousd, saved_memo_nanousd, saved_cache_nanousd,
           saved_coalesced_nanousd, saved_singleflight_nanousd, saved_answers, saved_unpriced
    FROM cost_tail
) AS lines
GROUP BY lines.day, tenant, queue, kind, operation, provider, model;

-- One row for each provider call. `waste`: NULL, `failed`, `superseded` or `died`; no answers and no prompts.
CREATE VIEW longshore_calls AS
SELECT to_timestamp(at / 1000.0) AS at, job_id, call_id, epoch, step, sequence, tenant, queue, kind, operation, provider,
       model, tier, status, billed, tokens_in, tokens_out, tokens_cached, tokens_cache_write, tokens_cache_write_long,
       tokens_reasoning, tokens_audio_in, tokens_audio_out, usage_source, cost_nanousd,
       (cost_nanousd * 0.000000001)::numeric(28, 9) AS cost_usd, price_version,
       CASE WHEN status <> 'ok' THEN 'failed' ELSE waste END AS waste, duration_ms, provider_request_id
FROM spend;

-- One row for each job, without payload, result and the words of errors. `cost_nanousd` is a lower bound while
-- `cost_unknown`.
CREATE VIEW longshore_jobs AS
SELECT id, tenant, queue, kind, CASE standing WHEN 0 THEN 'live' ELSE 'dead' END AS state, operation, batch_id, tags,
       to_timestamp(accepted_at / 1000.0) AS accepted_at, to_timestamp(run_at / 1000.0) AS run_at,
       to_timestamp(finished_at / 1000.0) AS finished_at, attempts, redrives, error_class, served_by, calls, tokens_in,
       tokens_out, cost_nanousd, (cost_nanousd * 0.000000001)::numeric(28, 9) AS cost_usd, cost_unknown
FROM jobs
UNION ALL
SELECT id, tenant, queue, kind, CASE standing WHEN 1 THEN 'succeeded' ELSE 'cancelled' END, operation, batch_id, tags,
       to_timestamp(accepted_at / 1000.0), to_timestamp(run_at / 1000.0), to_timestamp(finished_at / 1000.0), attempts,
       redrives, error_class, served_by, calls, tokens_in, tokens_out, cost_nanousd,
       (cost_nanousd * 0.000000001)::numeric(28, 9), cost_unknown
FROM settled_jobs;
