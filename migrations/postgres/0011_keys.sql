-- API keys with roles, grants, an end, rotation and revocation. Columns without a default: no table is written anew.

ALTER TABLE api_keys DROP CONSTRAINT api_keys_role_check;
ALTER TABLE api_keys ADD CONSTRAINT api_keys_role_check CHECK (role IN ('user', 'analyst', 'operator', 'admin'));
-- A JSON array of `area:act`; NULL: all that the role may do.
ALTER TABLE api_keys ADD COLUMN grants text COLLATE "C";
ALTER TABLE api_keys ADD COLUMN expires_at bigint;
-- The secret before the last rotation opens until then.
ALTER TABLE api_keys ADD COLUMN previous_hash bytea CHECK (octet_length(previous_hash) = 32);
ALTER TABLE api_keys ADD COLUMN previous_until bigint;
ALTER TABLE api_keys ADD COLUMN rotated_at bigint;
-- A key that was taken back stays as a row: jobs and ledger name it.
ALTER TABLE api_keys ADD COLUMN revoked_at bigint;
ALTER TABLE api_keys ADD COLUMN last_used_at bigint;
ALTER TABLE api_keys ADD CONSTRAINT api_keys_previous CHECK ((previous_hash IS NULL) = (previous_until IS NULL));

CREATE INDEX api_keys_tenant ON api_keys (tenant, id);

-- Dead letters of a tenant by cause. Live and succeeded jobs do not pay for it.
CREATE INDEX jobs_dead_tenant ON jobs (tenant, error_signature, error_class, queue) INCLUDE (finished_at, cost_nanousd, key_id)
    WHERE standing = 2;
