-- Purpose:   what a connection for callers of a tenant works with, beside `session.sql`.
-- Arguments: none.
-- Returns:   one row that says nothing.
-- Invariant: it is the role that row-level security binds, finds that role's views where others find theirs, writes nothing,
--            and without `tenant.sql` sees nothing.
SELECT set_config('search_path', 'longshore_tenant, ' || current_setting('search_path'), FALSE),
       set_config('default_transaction_read_only', 'on', FALSE), set_config('role', 'longshore_tenant', FALSE)
