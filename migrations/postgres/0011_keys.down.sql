-- Undoes 0011_keys.sql. What the program before it cannot tell from an admin key goes: it would open everything.

DELETE FROM api_keys WHERE role <> 'admin' OR grants IS NOT NULL OR expires_at IS NOT NULL OR revoked_at IS NOT NULL;
DROP INDEX jobs_dead_tenant;
DROP INDEX api_keys_tenant;
ALTER TABLE api_keys DROP CONSTRAINT api_keys_previous;
ALTER TABLE api_keys DROP COLUMN last_used_at;
ALTER TABLE api_keys DROP COLUMN revoked_at;
ALTER TABLE api_keys DROP COLUMN rotated_at;
ALTER TABLE api_keys DROP COLUMN previous_until;
ALTER TABLE api_keys DROP COLUMN previous_hash;
ALTER TABLE api_keys DROP COLUMN expires_at;
ALTER TABLE api_keys DROP COLUMN grants;
ALTER TABLE api_keys DROP CONSTRAINT api_keys_role_check;
ALTER TABLE api_keys ADD CONSTRAINT api_keys_role_check CHECK (role IN ('admin'));
