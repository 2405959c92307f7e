-- Budgets: what tenants, keys and the installation may spend in a day and a month, the alerts that were given, what each
-- key has spent, and what operators allow tenants to ask for.

ALTER TABLE jobs ADD COLUMN key_id TEXT;
ALTER TABLE jobs ADD COLUMN max_cost_nanousd INTEGER;
ALTER TABLE spend ADD COLUMN key_id TEXT;
-- What the tenant may ask for, as JSON; NULL where nothing is set.
ALTER TABLE tenants ADD COLUMN rules TEXT;

-- Live jobs that a budget sent away, which a raise brings back.
CREATE INDEX jobs_over_budget ON jobs (run_at) WHERE standing = 0 AND error_class = 'budget';

DROP VIEW job_rows;

-- A job as `journal::sqlite::rows::job` reads it: the order of these columns is its contract. Class and signature of
-- the error are only there to narrow lists.
CREATE VIEW job_rows AS
SELECT seq, id, tenant, queue, kind, target, priority, standing, epoch, attempts, max_attempts, recoveries, releases,
       redrives, run_at, start_by, deadline, timeout_ms, accepted_at, finished_at, unique_key, operation, batch_id,
       tags, request_id, traceparent, error, served_by, tokens_in, tokens_out, tokens_cached, tokens_cache_write,
       tokens_reasoning, cost_nanousd, cost_unknown, cancel_reason, error_class, error_signature,
       concurrency_key, key_id, max_cost_nanousd
FROM jobs;

-- A budget without any limit stays as a row: its version must go on growing.
CREATE TABLE budgets (
    -- `all`, `tenant:<name>` or `key:<id>`.
    scope         TEXT    NOT NULL PRIMARY KEY,
    -- Grows with every change.
    version       INTEGER NOT NULL CHECK (version >= 1),
    day_nanousd   INTEGER CHECK (day_nanousd >= 0),
    month_nanousd INTEGER CHECK (month_nanousd >= 0),
    day_tokens    INTEGER CHECK (day_tokens >= 0),
    month_tokens  INTEGER CHECK (month_tokens >= 0),
    at_limit      TEXT    NOT NULL CHECK (at_limit IN ('park', 'fail', 'degrade')),
    degrade_to    TEXT,
    CHECK ((at_limit = 'degrade') = (degrade_to IS NOT NULL))
) STRICT, WITHOUT ROWID;

-- One row for each level that a budget has reached in a period: whoever wrote it has told it.
CREATE TABLE budget_alerts (
    scope   TEXT    NOT NULL,
    measure TEXT    NOT NULL CHECK (measure IN ('usd', 'tokens')),
    period  TEXT    NOT NULL CHECK (period IN ('day', 'month')),
    -- Start of the period.
    since   INTEGER NOT NULL,
    level   INTEGER NOT NULL CHECK (level IN (50, 80, 100)),
    spent   INTEGER NOT NULL,
    budget  INTEGER NOT NULL,
    at      INTEGER NOT NULL,
    PRIMARY KEY (scope, measure, period, since, level)
) STRICT, WITHOUT ROWID;

-- What keys have spent by UTC day, kept as `cost_days` is.
CREATE TABLE key_days (
    day           INTEGER NOT NULL,
    key_id        TEXT    NOT NULL,
    -- Callers of an identity provider are of the tenant that their token says.
    tenant        TEXT    NOT NULL,
    spend_nanousd INTEGER NOT NULL,
    tokens        INTEGER NOT NULL,
    PRIMARY KEY (day, key_id, tenant)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER spend_of_keys_summed AFTER INSERT ON spend WHEN new.key_id IS NOT NULL BEGIN
    INSERT INTO key_days (day, key_id, tenant, spend_nanousd, tokens)
    VALUES (new.at - new.at % 86400000, new.key_id, new.tenant, coalesce(new.cost_nanousd, 0), new.tokens_in + new.tokens_out)
    ON CONFLICT (day, key_id, tenant) DO UPDATE
    SET spend_nanousd = spend_nanousd + excluded.spend_nanousd, tokens = tokens + excluded.tokens;
END;
