-- Provider calls: what each cost (spend), the answers that are kept for a re-run (memos), and what succeeded jobs are
-- charged (charges). Rows copy the labels of their job, so that a report needs no join and survives the job.

-- Kept as long as the job, so partitioned as its other rows are.
CREATE TABLE memos (
    job_id       uuid  NOT NULL,
    tenant       text  NOT NULL COLLATE "C",
    call_id      uuid  NOT NULL,
    request_hash bytea NOT NULL CHECK (octet_length(request_hash) = 32),
    body         bytea NOT NULL,
    -- A call's id is a function of its job, so this is the call's uniqueness and the job's index in one.
    PRIMARY KEY (job_id, call_id)
) PARTITION BY RANGE (job_id);

CREATE TABLE memos_default PARTITION OF memos DEFAULT;

CREATE TABLE spend (
    job_id              uuid    NOT NULL,
    call_id             uuid    NOT NULL,
    tenant              text    NOT NULL COLLATE "C",
    queue               text    NOT NULL COLLATE "C",
    kind                text    NOT NULL COLLATE "C",
    operation           text    COLLATE "C",
    epoch               bigint  NOT NULL,
    step                text    NOT NULL COLLATE "C",
    sequence            bigint  NOT NULL,
    provider            text    NOT NULL COLLATE "C",
    model               text    NOT NULL COLLATE "C",
    -- `ok`, or the class of the error that the call ended in.
    status              text    NOT NULL COLLATE "C",
    billed              text    NOT NULL COLLATE "C" CHECK (billed IN ('yes', 'no', 'maybe')),
    tokens_in           bigint  NOT NULL,
    tokens_out          bigint  NOT NULL,
    tokens_cached       bigint  NOT NULL,
    tokens_cache_write  bigint  NOT NULL,
    tokens_reasoning    bigint  NOT NULL,
    usage_source        text    NOT NULL COLLATE "C" CHECK (usage_source IN ('provider', 'estimated')),
    -- NULL where nobody knows the price.
    cost_nanousd        bigint,
    price_version       text    NOT NULL COLLATE "C",
    duration_ms         bigint  NOT NULL,
    provider_request_id text    COLLATE "C",
    at                  bigint  NOT NULL,
    -- The order of recording, which tells calls of one millisecond apart.
    seq                 bigint  NOT NULL GENERATED ALWAYS AS IDENTITY,
    -- A zombie and its successor may both pay for one call: that is two payments, and both are counted.
    PRIMARY KEY (job_id, call_id, epoch)
);

CREATE INDEX spend_at ON spend (at);

CREATE TABLE charges (
    job_id         uuid   NOT NULL PRIMARY KEY,
    tenant         text   NOT NULL COLLATE "C",
    queue          text   NOT NULL COLLATE "C",
    kind           text   NOT NULL COLLATE "C",
    operation      text   COLLATE "C",
    charge_nanousd bigint NOT NULL,
    at             bigint NOT NULL
);

CREATE INDEX charges_at ON charges (at);
