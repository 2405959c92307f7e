-- API keys with roles, grants, an end, rotation and revocation. A new table, since a CHECK cannot be changed.

ALTER TABLE api_keys RENAME TO api_keys_before;

CREATE TABLE api_keys (
    id             TEXT    NOT NULL PRIMARY KEY,
    secret_hash    BLOB    NOT NULL CHECK (length(secret_hash) = 32),
    tenant         TEXT    NOT NULL,
    role           TEXT    NOT NULL CHECK (role IN ('user', 'analyst', 'operator', 'admin')),
    name           TEXT    NOT NULL,
    created_at     INTEGER NOT NULL,
    -- A JSON array of `area:act`; NULL: all that the role may do.
    grants         TEXT,
    expires_at     INTEGER,
    -- The secret before the last rotation opens until then.
    previous_hash  BLOB    CHECK (length(previous_hash) = 32),
    previous_until INTEGER,
    rotated_at     INTEGER,
    -- A key that was taken back stays as a row: jobs and ledger name it.
    revoked_at     INTEGER,
    last_used_at   INTEGER,
    CHECK ((previous_hash IS NULL) = (previous_until IS NULL))
) STRICT, WITHOUT ROWID;

INSERT INTO api_keys (id, secret_hash, tenant, role, name, created_at)
SELECT id, secret_hash, tenant, role, name, created_at FROM api_keys_before;
DROP TABLE api_keys_before;

CREATE INDEX api_keys_tenant ON api_keys (tenant, id);

-- Dead letters of a tenant by cause. Live and succeeded jobs do not pay for it.
CREATE INDEX jobs_dead_tenant ON jobs (tenant, error_signature, error_class, queue, finished_at, cost_nanousd, key_id)
    WHERE standing = 2;
