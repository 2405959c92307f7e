-- Tenants have provider keys of their own, sealed; calls say whose key they were made with.

CREATE TABLE credentials (
    tenant      text     NOT NULL COLLATE "C",
    provider    text     NOT NULL COLLATE "C",
    -- Grows with every new key and with a deletion; the key is sealed for this version.
    version     bigint   NOT NULL CHECK (version >= 1),
    -- Grows with every change of any row, in the order of the commits (see credential_mark).
    revision    bigint   NOT NULL UNIQUE,
    state       text     NOT NULL COLLATE "C" CHECK (state IN ('active', 'disabled', 'deleted')),
    reason      text     COLLATE "C",
    -- The master key that opens wrapped_key, which opens ciphertext. Each is a nonce and what was encrypted with it.
    kek_id      text     COLLATE "C",
    wrapped_key bytea,
    ciphertext  bytea,
    -- The key's last characters, for people.
    hint        text     NOT NULL COLLATE "C",
    failures    integer  NOT NULL CHECK (failures >= 0),
    created_at  bigint   NOT NULL,
    rotated_at  bigint   NOT NULL,
    used_at     bigint,
    PRIMARY KEY (tenant, provider),
    -- A deleted row keeps its name and number, and nothing that is secret.
    CHECK ((state = 'deleted') = (ciphertext IS NULL)),
    CHECK ((ciphertext IS NULL) = (wrapped_key IS NULL) AND (ciphertext IS NULL) = (kek_id IS NULL))
);

-- The last revision. Whoever changes a credential changes this row first and holds it until the commit: so revisions become
-- visible in their order, and a reader that asks for what is above the last one it saw misses nothing.
CREATE TABLE credential_mark (
    one      boolean NOT NULL PRIMARY KEY CHECK (one),
    revision bigint  NOT NULL
);
INSERT INTO credential_mark (one, revision) VALUES (TRUE, 0);

ALTER TABLE tenants ADD COLUMN credential_policy text NOT NULL COLLATE "C" DEFAULT 'own_then_default'
    CHECK (credential_policy IN ('own_only', 'own_then_default', 'default'));

-- Whose key the call was made with: `default` is the operator's.
ALTER TABLE spend ADD COLUMN credential text NOT NULL COLLATE "C" DEFAULT 'default';

CREATE OR REPLACE VIEW longshore_calls AS
SELECT to_timestamp(at / 1000.0) AS at, job_id, call_id, epoch, step, sequence, tenant, queue, kind, operation, provider,
       model, tier, status, billed, tokens_in, tokens_out, tokens_cached, tokens_cache_write, tokens_cache_write_long,
       tokens_reasoning, tokens_audio_in, tokens_audio_out, usage_source, cost_nanousd,
       (cost_nanousd * 0.000000001)::numeric(28, 9) AS cost_usd, price_version,
       CASE WHEN status <> 'ok' THEN 'failed' ELSE waste END AS waste, duration_ms, provider_request_id, credential
FROM spend;
