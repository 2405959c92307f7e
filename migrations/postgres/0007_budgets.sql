-- Budgets: what tenants, keys and the installation may spend in a day and a month, the alerts that were given, what each
-- key has spent, and what operators allow tenants to ask for. Columns without a default that would be written: no table
-- is written anew.

ALTER TABLE jobs ADD COLUMN key_id text COLLATE "C";
ALTER TABLE jobs ADD COLUMN max_cost_nanousd bigint;
ALTER TABLE settled_jobs ADD COLUMN key_id text COLLATE "C";
ALTER TABLE settled_jobs ADD COLUMN max_cost_nanousd bigint;
ALTER TABLE spend ADD COLUMN key_id text COLLATE "C";
-- What the tenant may ask for, as JSON; NULL where nothing is set.
ALTER TABLE tenants ADD COLUMN rules text COLLATE "C";

-- Live jobs that a budget sent away, which a raise brings back.
CREATE INDEX jobs_over_budget ON jobs (run_at, id) WHERE standing < 1 AND error_class = 'budget';

-- A job as `journal::postgres::rows::job` reads it: the order of these columns is its contract. Replaced and not made
-- anew, so that the rights on it stay.
CREATE OR REPLACE VIEW job_rows AS
SELECT id, tenant, queue, kind, target, priority, standing, epoch, attempts, max_attempts, recoveries, releases,
       redrives, run_at, start_by, deadline, timeout_ms, accepted_at, finished_at, unique_key, operation, batch_id,
       tags, request_id, traceparent, error, served_by, tokens_in, tokens_out, tokens_cached, tokens_cache_write,
       tokens_reasoning, cost_nanousd, cost_unknown, NULL::text AS cancel_reason, error_class, error_signature,
       concurrency_key, key_id, max_cost_nanousd
FROM jobs
UNION ALL
SELECT id, tenant, queue, kind, target, priority, standing, epoch, attempts, max_attempts, recoveries, releases,
       redrives, run_at, start_by, deadline, timeout_ms, accepted_at, finished_at, unique_key, operation, batch_id,
       tags, request_id, traceparent, error, served_by, tokens_in, tokens_out, tokens_cached, tokens_cache_write,
       tokens_reasoning, cost_nanousd, cost_unknown, cancel_reason, error_class, error_signature,
       concurrency_key, key_id, max_cost_nanousd
FROM settled_jobs;

-- A budget without any limit stays as a row: its version must go on growing.
CREATE TABLE budgets (
    -- `all`, `tenant:<name>` or `key:<id>`.
    scope         text   NOT NULL COLLATE "C" PRIMARY KEY,
    -- Grows with every change.
    version       bigint NOT NULL CHECK (version >= 1),
    day_nanousd   bigint CHECK (day_nanousd >= 0),
    month_nanousd bigint CHECK (month_nanousd >= 0),
    day_tokens    bigint CHECK (day_tokens >= 0),
    month_tokens  bigint CHECK (month_tokens >= 0),
    at_limit      text   NOT NULL COLLATE "C" CHECK (at_limit IN ('park', 'fail', 'degrade')),
    degrade_to    text   COLLATE "C",
    CHECK ((at_limit = 'degrade') = (degrade_to IS NOT NULL))
);

-- One row for each level that a budget has reached in a period: whoever wrote it has told it.
CREATE TABLE budget_alerts (
    scope   text     NOT NULL COLLATE "C",
    measure text     NOT NULL COLLATE "C" CHECK (measure IN ('usd', 'tokens')),
    period  text     NOT NULL COLLATE "C" CHECK (period IN ('day', 'month')),
    -- Start of the period.
    since   bigint   NOT NULL,
    level   smallint NOT NULL CHECK (level IN (50, 80, 100)),
    spent   bigint   NOT NULL,
    budget  bigint   NOT NULL,
    at      bigint   NOT NULL,
    PRIMARY KEY (scope, measure, period, since, level)
);

-- What keys have spent by UTC day, kept as `cost_days` and `cost_tail` are.
CREATE TABLE key_days (
    day           bigint NOT NULL,
    key_id        text   NOT NULL COLLATE "C",
    -- Callers of an identity provider are of the tenant that their token says.
    tenant        text   NOT NULL COLLATE "C",
    spend_nanousd bigint NOT NULL,
    tokens        bigint NOT NULL,
    PRIMARY KEY (day, key_id, tenant)
)
WITH (fillfactor = 70);

CREATE TABLE key_tail (
    LIKE key_days INCLUDING DEFAULTS,
    id bigint NOT NULL GENERATED ALWAYS AS IDENTITY PRIMARY KEY
)
WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_insert_scale_factor = 0.1,
      autovacuum_vacuum_cost_delay = 0, vacuum_truncate = FALSE);

CREATE FUNCTION note_spend_of_keys() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO key_tail (day, key_id, tenant, spend_nanousd, tokens)
    SELECT at - at % 86400000, key_id, tenant, sum(coalesce(cost_nanousd, 0)), sum(tokens_in + tokens_out)
    FROM added
    WHERE key_id IS NOT NULL
    GROUP BY 1, 2, 3;
    RETURN NULL;
END $$;

CREATE TRIGGER spend_of_keys_noted AFTER INSERT ON spend REFERENCING NEW TABLE AS added
FOR EACH STATEMENT EXECUTE FUNCTION note_spend_of_keys();
