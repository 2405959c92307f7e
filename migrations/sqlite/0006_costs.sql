-- Costs that stay fast: what calls, charges and savings come to by UTC day. And what a report needs to know of a call:
-- its service tier, audio and long-kept cache writes, whether it was its job's first, whether it was for nothing.
--
-- One thread writes this file, so the sums are kept by the rows' own triggers, in the transaction that writes the row.

ALTER TABLE spend ADD COLUMN tokens_cache_write_long INTEGER NOT NULL DEFAULT 0;
ALTER TABLE spend ADD COLUMN tokens_audio_in INTEGER NOT NULL DEFAULT 0;
ALTER TABLE spend ADD COLUMN tokens_audio_out INTEGER NOT NULL DEFAULT 0;
ALTER TABLE spend ADD COLUMN tier TEXT NOT NULL DEFAULT 'standard'
    CHECK (tier IN ('standard', 'batch', 'flex', 'priority', 'other'));
-- The first row of its job: summing these counts jobs, each once.
ALTER TABLE spend ADD COLUMN opens_job INTEGER NOT NULL DEFAULT 0 CHECK (opens_job IN (0, 1));
-- Why an answer is of no use: another one to the same call was there, or its job is a dead letter. A call without an
-- answer (`status`) is of no use anyway.
ALTER TABLE spend ADD COLUMN waste TEXT CHECK (waste IN ('superseded', 'died'));

-- Answers that needed no call, at what the call would have cost. Nobody paid for these.
CREATE TABLE savings (
    job_id        BLOB    NOT NULL CHECK (length(job_id) = 16),
    call_id       BLOB    NOT NULL CHECK (length(call_id) = 16),
    epoch         INTEGER NOT NULL,
    reason        TEXT    NOT NULL CHECK (reason IN ('memo', 'cache', 'coalesced', 'singleflight')),
    tenant        TEXT    NOT NULL,
    queue         TEXT    NOT NULL,
    kind          TEXT    NOT NULL,
    operation     TEXT,
    provider      TEXT    NOT NULL,
    model         TEXT    NOT NULL,
    tokens_in     INTEGER NOT NULL,
    tokens_out    INTEGER NOT NULL,
    -- NULL where nobody knows the price.
    saved_nanousd INTEGER,
    at            INTEGER NOT NULL,
    UNIQUE (job_id, call_id, epoch, reason)
) STRICT;

CREATE INDEX savings_at ON savings (at);

-- `day` is the start of a UTC day in milliseconds. Charges have no provider and no model; no operation is ''.
CREATE TABLE cost_days (
    day                        INTEGER NOT NULL,
    tenant                     TEXT    NOT NULL,
    queue                      TEXT    NOT NULL,
    kind                       TEXT    NOT NULL,
    operation                  TEXT    NOT NULL,
    provider                   TEXT    NOT NULL,
    model                      TEXT    NOT NULL,
    calls                      INTEGER NOT NULL DEFAULT 0,
    calls_maybe                INTEGER NOT NULL DEFAULT 0,
    calls_unpriced             INTEGER NOT NULL DEFAULT 0,
    jobs                       INTEGER NOT NULL DEFAULT 0,
    tokens_in                  INTEGER NOT NULL DEFAULT 0,
    tokens_out                 INTEGER NOT NULL DEFAULT 0,
    tokens_cached              INTEGER NOT NULL DEFAULT 0,
    tokens_cache_write         INTEGER NOT NULL DEFAULT 0,
    tokens_reasoning           INTEGER NOT NULL DEFAULT 0,
    tokens_cache_write_long    INTEGER NOT NULL DEFAULT 0,
    tokens_audio_in            INTEGER NOT NULL DEFAULT 0,
    tokens_audio_out           INTEGER NOT NULL DEFAULT 0,
    spend_nanousd              INTEGER NOT NULL DEFAULT 0,
    wasted_nanousd             INTEGER NOT NULL DEFAULT 0,
    charge_nanousd             INTEGER NOT NULL DEFAULT 0,
    saved_memo_nanousd         INTEGER NOT NULL DEFAULT 0,
    saved_cache_nanousd        INTEGER NOT NULL DEFAULT 0,
    saved_coalesced_nanousd    INTEGER NOT NULL DEFAULT 0,
    saved_singleflight_nanousd INTEGER NOT NULL DEFAULT 0,
    saved_answers              INTEGER NOT NULL DEFAULT 0,
    saved_unpriced             INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (day, tenant, queue, kind, operation, provider, model)
) STRICT, WITHOUT ROWID;

-- The money row by row, in the columns of `cost_days` but with its moment: what its rows are sums of.
CREATE VIEW cost_lines AS
SELECT at, tenant, queue, kind, coalesce(operation, '') AS operation, provider, model, 1 AS calls,
       (billed = 'maybe') AS calls_maybe,
       (billed = 'yes' AND cost_nanousd IS NULL) AS calls_unpriced, opens_job AS jobs,
       tokens_in, tokens_out, tokens_cached, tokens_cache_write, tokens_reasoning, tokens_cache_write_long,
       tokens_audio_in, tokens_audio_out, coalesce(cost_nanousd, 0) AS spend_nanousd,
       CASE WHEN status <> 'ok' OR waste IS NOT NULL THEN coalesce(cost_nanousd, 0) ELSE 0 END AS wasted_nanousd,
       0 AS charge_nanousd, 0 AS saved_memo_nanousd, 0 AS saved_cache_nanousd,
       0 AS saved_coalesced_nanousd, 0 AS saved_singleflight_nanousd, 0 AS saved_answers,
       0 AS saved_unpriced
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
       1, (saved_nanousd IS NULL)
FROM savings;

-- What is there already.
UPDATE spend SET opens_job = 1 WHERE rowid IN (SELECT min(rowid) FROM spend GROUP BY job_id);

UPDATE spend SET waste = 'superseded'
WHERE status = 'ok' AND EXISTS (
    SELECT 1 FROM spend AS earlier
    WHERE earlier.job_id = spend.job_id AND earlier.call_id = spend.call_id AND earlier.status = 'ok'
      AND earlier.rowid < spend.rowid
);

UPDATE spend SET waste = 'died'
WHERE status = 'ok' AND waste IS NULL AND job_id IN (SELECT id FROM jobs WHERE standing = 2);

INSERT INTO cost_days
SELECT at - at % 86400000 AS day, tenant, queue, kind, operation, provider, model, sum(calls), sum(calls_maybe),
       sum(calls_unpriced), sum(jobs), sum(tokens_in), sum(tokens_out), sum(tokens_cached), sum(tokens_cache_write),
       sum(tokens_reasoning), sum(tokens_cache_write_long), sum(tokens_audio_in), sum(tokens_audio_out),
       sum(spend_nanousd), sum(wasted_nanousd), sum(charge_nanousd), sum(saved_memo_nanousd), sum(saved_cache_nanousd),
       sum(saved_coalesced_nanousd), sum(saved_singleflight_nanousd), sum(saved_answers), sum(saved_unpriced)
FROM cost_lines
GROUP BY 1, 2, 3, 4, 5, 6, 7;

-- From here on, whoever writes money writes its sums.
CREATE TRIGGER spend_summed AFTER INSERT ON spend BEGIN
    INSERT INTO cost_days (day, tenant, queue, kind, operation, provider, model, calls, calls_maybe, calls_unpriced,
    jobs, tokens_in, tokens_out, tokens_cached, tokens_cache_write, tokens_reasoning, tokens_cache_write_long,
    tokens_audio_in, tokens_audio_out, spend_nanousd, wasted_nanousd)
    VALUES (new.at - new.at % 86400000, new.tenant, new.queue, new.kind, coalesce(new.operation, ''), new.provider,
    new.model, 1, new.billed = 'maybe', new.billed = 'yes' AND new.cost_nanousd IS NULL, new.opens_job, new.tokens_in,
    new.tokens_out, new.tokens_cached, new.tokens_cache_write, new.tokens_reasoning, new.tokens_cache_write_long,
    new.tokens_audio_in, new.tokens_audio_out, coalesce(new.cost_nanousd, 0), CASE WHEN new.status <> 'ok' OR
    new.waste IS NOT NULL THEN coalesce(new.cost_nanousd, 0) ELSE 0 END)
    ON CONFLICT (day, tenant, queue, kind, operation, provider, model) DO UPDATE
    SET calls = calls + excluded.calls, calls_maybe = calls_maybe + excluded.calls_maybe, calls_unpriced =
    calls_unpriced + excluded.calls_unpriced, jobs = jobs + excluded.jobs, tokens_in = tokens_in + excluded.tokens_in,
    tokens_out = tokens_out + excluded.tokens_out, tokens_cached = tokens_cached + excluded.tokens_cached,
    tokens_cache_write = tokens_cache_write + excluded.tokens_cache_write, tokens_reasoning = tokens_reasoning +
    excluded.tokens_reasoning, tokens_cache_write_long = tokens_cache_write_long + excluded.tokens_cache_write_long,
    tokens_audio_in = tokens_audio_in + excluded.tokens_audio_in, tokens_audio_out = tokens_audio_out +
    excluded.tokens_audio_out, spend_nanousd = spend_nanousd + excluded.spend_nanousd, wasted_nanousd = wasted_nanousd
    + excluded.wasted_nanousd;
END;

-- Of a row of `spend` only `waste` ever changes.
CREATE TRIGGER waste_summed AFTER UPDATE OF waste ON spend
WHEN new.status = 'ok' AND (old.waste IS NULL) <> (new.waste IS NULL) AND new.cost_nanousd IS NOT NULL BEGIN
    INSERT INTO cost_days (day, tenant, queue, kind, operation, provider, model, wasted_nanousd)
    VALUES (new.at - new.at % 86400000, new.tenant, new.queue, new.kind, coalesce(new.operation, ''), new.provider,
    new.model, CASE WHEN new.waste IS NULL THEN -new.cost_nanousd ELSE new.cost_nanousd END)
    ON CONFLICT (day, tenant, queue, kind, operation, provider, model) DO UPDATE
    SET wasted_nanousd = wasted_nanousd + excluded.wasted_nanousd;
END;

CREATE TRIGGER charges_summed AFTER INSERT ON charges BEGIN
    INSERT INTO cost_days (day, tenant, queue, kind, operation, provider, model, charge_nanousd)
    VALUES (new.at - new.at % 86400000, new.tenant, new.queue, new.kind, coalesce(new.operation, ''), '', '',
    new.charge_nanousd)
    ON CONFLICT (day, tenant, queue, kind, operation, provider, model) DO UPDATE
    SET charge_nanousd = charge_nanousd + excluded.charge_nanousd;
END;

CREATE TRIGGER savings_summed AFTER INSERT ON savings BEGIN
    INSERT INTO cost_days (day, tenant, queue, kind, operation, provider, model, saved_memo_nanousd,
    saved_cache_nanousd, saved_coalesced_nanousd, saved_singleflight_nanousd, saved_answers, saved_unpriced)
    VALUES (new.at - new.at % 86400000, new.tenant, new.queue, new.kind, coalesce(new.operation, ''), new.provider,
    new.model, CASE WHEN new.reason = 'memo' THEN coalesce(new.saved_nanousd, 0) ELSE 0 END, CASE WHEN new.reason =
    'cache' THEN coalesce(new.saved_nanousd, 0) ELSE 0 END, CASE WHEN new.reason = 'coalesced' THEN
    coalesce(new.saved_nanousd, 0) ELSE 0 END, CASE WHEN new.reason = 'singleflight' THEN coalesce(new.saved_nanousd,
    0) ELSE 0 END, 1, new.saved_nanousd IS NULL)
    ON CONFLICT (day, tenant, queue, kind, operation, provider, model) DO UPDATE
    SET saved_memo_nanousd = saved_memo_nanousd + excluded.saved_memo_nanousd, saved_cache_nanousd =
    saved_cache_nanousd + excluded.saved_cache_nanousd, saved_coalesced_nanousd = saved_coalesced_nanousd +
    excluded.saved_coalesced_nanousd, saved_singleflight_nanousd = saved_singleflight_nanousd +
    excluded.saved_singleflight_nanousd, saved_answers = saved_answers + excluded.saved_answers, saved_unpriced =
    saved_unpriced + excluded.saved_unpriced;
END;

-- For people who ask in SQL. These three are stable: columns are only ever added at the end. Moments are ISO texts, ids
-- are hexadecimal, money is integer nano-USD and a decimal text of dollars.

-- Sums by day and label, whole UTC days.
CREATE VIEW longshore_costs AS
SELECT date(day / 1000, 'unixepoch') AS day, tenant, queue, kind, operation, provider, model, calls, calls_maybe,
       calls_unpriced, jobs, tokens_in, tokens_out, tokens_cached, tokens_cache_write, tokens_reasoning, spend_nanousd,
       wasted_nanousd, charge_nanousd,
       saved_memo_nanousd + saved_cache_nanousd + saved_coalesced_nanousd + saved_singleflight_nanousd
           AS saved_nanousd,
       printf('%d.%09d', spend_nanousd / 1000000000, spend_nanousd % 1000000000) AS spend_usd,
       printf('%d.%09d', charge_nanousd / 1000000000, charge_nanousd % 1000000000) AS charge_usd
FROM cost_days;

-- One row for each provider call. `waste`: NULL, `failed`, `superseded` or `died`; no answers and no prompts.
CREATE VIEW longshore_calls AS
SELECT strftime('%Y-%m-%dT%H:%M:%fZ', at / 1000.0, 'unixepoch') AS at, lower(hex(job_id)) AS job_id,
       lower(hex(call_id)) AS call_id, epoch, step, sequence, tenant, queue, kind, operation, provider, model, tier,
       status, billed, tokens_in, tokens_out, tokens_cached, tokens_cache_write, tokens_cache_write_long,
       tokens_reasoning, tokens_audio_in, tokens_audio_out, usage_source, cost_nanousd,
       CASE WHEN cost_nanousd IS NOT NULL
            THEN printf('%d.%09d', cost_nanousd / 1000000000, cost_nanousd % 1000000000) END AS cost_usd,
       price_version, CASE WHEN status <> 'ok' THEN 'failed' ELSE waste END AS waste, duration_ms, provider_request_id
FROM spend;

-- One row for each job, without payload, result and the words of errors. `cost_nanousd` is a lower bound while
-- `cost_unknown`.
CREATE VIEW longshore_jobs AS
SELECT lower(hex(id)) AS id, tenant, queue, kind,
       CASE standing WHEN 0 THEN 'live' WHEN 1 THEN 'succeeded' WHEN 2 THEN 'dead' ELSE 'cancelled' END AS state, operation,
       batch_id, tags, strftime('%Y-%m-%dT%H:%M:%fZ', accepted_at / 1000.0, 'unixepoch') AS accepted_at,
       strftime('%Y-%m-%dT%H:%M:%fZ', run_at / 1000.0, 'unixepoch') AS run_at,
       strftime('%Y-%m-%dT%H:%M:%fZ', finished_at / 1000.0, 'unixepoch') AS finished_at, attempts, redrives,
       error_class, served_by, calls, tokens_in, tokens_out, cost_nanousd,
       printf('%d.%09d', cost_nanousd / 1000000000, cost_nanousd % 1000000000) AS cost_usd, cost_unknown
FROM jobs;
