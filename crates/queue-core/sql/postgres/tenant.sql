-- Purpose:   says whose the rest of the transaction is.
-- Arguments: 1 the tenant.
-- Returns:   one row that says nothing.
-- Invariant: ends with the transaction; row-level security shows the role `longshore_tenant` that tenant's rows and no other.
SELECT set_config('app.tenant', $1, TRUE)
