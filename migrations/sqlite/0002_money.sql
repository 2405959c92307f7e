-- Provider calls: what each cost (spend), the answers that are kept for a re-run (memos), and what succeeded jobs are
-- charged (charges). Rows copy the labels of their job, so that a report needs no join and survives the job.

CREATE TABLE memos (
    job_id       BLOB NOT NULL CHECK (length(job_id) = 16),
    call_id      BLOB NOT NULL CHECK (length(call_id) = 16),
    request_hash BLOB NOT NULL CHECK (length(request_hash) = 32),
    body         BLOB NOT NULL,
    -- A call's id is a function of its job, so this is the call's uniqueness and the job's index in one.
    UNIQUE (job_id, call_id)
) STRICT;

CREATE TABLE spend (
    job_id              BLOB    NOT NULL CHECK (length(job_id) = 16),
    call_id             BLOB    NOT NULL CHECK (length(call_id) = 16),
    tenant              TEXT    NOT NULL,
    queue               TEXT    NOT NULL,
    kind                TEXT    NOT NULL,
    operation           TEXT,
    epoch               INTEGER NOT NULL,
    step                TEXT    NOT NULL,
    sequence            INTEGER NOT NULL,
    provider            TEXT    NOT NULL,
    model               TEXT    NOT NULL,
    -- `ok`, or the class of the error that the call ended in.
    status              TEXT    NOT NULL,
    billed              TEXT    NOT NULL CHECK (billed IN ('yes', 'no', 'maybe')),
    tokens_in           INTEGER NOT NULL,
    tokens_out          INTEGER NOT NULL,
    tokens_cached       INTEGER NOT NULL,
    tokens_cache_write  INTEGER NOT NULL,
    tokens_reasoning    INTEGER NOT NULL,
    usage_source        TEXT    NOT NULL CHECK (usage_source IN ('provider', 'estimated')),
    -- NULL where nobody knows the price.
    cost_nanousd        INTEGER,
    price_version       TEXT    NOT NULL,
    duration_ms         INTEGER NOT NULL,
    provider_request_id TEXT,
    at                  INTEGER NOT NULL,
    -- A zombie and its successor may both pay for one call: that is two payments, and both are counted.
    UNIQUE (job_id, call_id, epoch)
) STRICT;

CREATE INDEX spend_at ON spend (at);

CREATE TABLE charges (
    job_id         BLOB    NOT NULL UNIQUE CHECK (length(job_id) = 16),
    tenant         TEXT    NOT NULL,
    queue          TEXT    NOT NULL,
    kind           TEXT    NOT NULL,
    operation      TEXT,
    charge_nanousd INTEGER NOT NULL,
    at             INTEGER NOT NULL
) STRICT;

CREATE INDEX charges_at ON charges (at);
