-- Tenants have provider keys of their own, sealed; calls say whose key they were made with.

CREATE TABLE credentials (
    tenant      TEXT    NOT NULL,
    provider    TEXT    NOT NULL,
    -- Grows with every new key and with a deletion; the key is sealed for this version.
    version     INTEGER NOT NULL CHECK (version >= 1),
    -- Grows with every change of any row.
    revision    INTEGER NOT NULL UNIQUE,
    state       TEXT    NOT NULL CHECK (state IN ('active', 'disabled', 'deleted')),
    reason      TEXT,
    -- The master key that opens wrapped_key, which opens ciphertext. Each is a nonce and what was encrypted with it.
    kek_id      TEXT,
    wrapped_key BLOB,
    ciphertext  BLOB,
    -- The key's last characters, for people.
    hint        TEXT    NOT NULL,
    failures    INTEGER NOT NULL CHECK (failures >= 0),
    created_at  INTEGER NOT NULL,
    rotated_at  INTEGER NOT NULL,
    used_at     INTEGER,
    PRIMARY KEY (tenant, provider),
    -- A deleted row keeps its name and number, and nothing that is secret.
    CHECK ((state = 'deleted') = (ciphertext IS NULL)),
    CHECK ((ciphertext IS NULL) = (wrapped_key IS NULL) AND (ciphertext IS NULL) = (kek_id IS NULL))
) STRICT, WITHOUT ROWID;

ALTER TABLE tenants ADD COLUMN credential_policy TEXT NOT NULL DEFAULT 'own_then_default'
    CHECK (credential_policy IN ('own_only', 'own_then_default', 'default'));

-- Whose key the call was made with: `default` is the operator's.
ALTER TABLE spend ADD COLUMN credential TEXT NOT NULL DEFAULT 'default';

DROP VIEW longshore_calls;
CREATE VIEW longshore_calls AS
SELECT strftime('%Y-%m-%dT%H:%M:%fZ', at / 1000.0, 'unixepoch') AS at, lower(hex(job_id)) AS job_id,
       lower(hex(call_id)) AS call_id, epoch, step, sequence, tenant, queue, kind, operation, provider, model, tier,
       status, billed, tokens_in, tokens_out, tokens_cached, tokens_cache_write, tokens_cache_write_long,
       tokens_reasoning, tokens_audio_in, tokens_audio_out, usage_source, cost_nanousd,
       CASE WHEN cost_nanousd IS NOT NULL
            THEN printf('%d.%09d', cost_nanousd / 1000000000, cost_nanousd % 1000000000) END AS cost_usd,
       price_version, CASE WHEN status <> 'ok' THEN 'failed' ELSE waste END AS waste, duration_ms, provider_request_id,
       credential
FROM spend;
