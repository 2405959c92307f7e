-- Purpose:   whether the role of this connection may read as a caller of a tenant, and is not bound as one itself.
-- Arguments: none.
-- Returns:   what is wrong, in words; none where all is well.
-- Invariant: writes nothing.
SELECT CASE
    WHEN to_regrole('longshore_tenant') IS NULL
        THEN 'this server has no role longshore_tenant: make it and longshore_switch as 0015_tenants.sql does'
    WHEN NOT pg_has_role(me.rolname, 'longshore_tenant', 'MEMBER')
        THEN format('it may not become longshore_tenant: GRANT longshore_switch TO %I', me.rolname)
    WHEN pg_has_role(me.rolname, 'longshore_tenant', 'USAGE') AND NOT me.rolsuper AND NOT me.rolbypassrls
        THEN format('it inherits from longshore_tenant and would see no rows: REVOKE longshore_tenant FROM %I; '
                    'GRANT longshore_switch TO %I', me.rolname, me.rolname)
END
FROM pg_roles AS me
WHERE me.rolname = current_user
