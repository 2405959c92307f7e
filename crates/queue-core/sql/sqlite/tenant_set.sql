-- Purpose:   replaces a tenant's settings.
-- Arguments: 1 name, 2 backlog_max, 3 weight.
-- Returns:   the new version.
-- Invariant: versions grow by one with every change.
INSERT INTO tenants (name, version, backlog_max, weight) VALUES (?1, 1, ?2, ?3)
ON CONFLICT (name) DO UPDATE
SET version = version + 1, backlog_max = excluded.backlog_max, weight = excluded.weight
RETURNING version;
