-- Undoes 0015_tenants.sql. The two roles stay: other databases of the server may use them. Tokens that were
-- taken back are believed again by a program that knows of tokens; the one before it knows none.

DO $$
DECLARE
    name text;
BEGIN
    FOR name IN
        SELECT c.relname FROM pg_class c
        WHERE c.relnamespace = current_schema()::regnamespace AND c.relrowsecurity
    LOOP
        EXECUTE format('DROP POLICY IF EXISTS everybody ON %I', name);
        EXECUTE format('DROP POLICY IF EXISTS tenant_alone ON %I', name);
        EXECUTE format('ALTER TABLE %I NO FORCE ROW LEVEL SECURITY, DISABLE ROW LEVEL SECURITY', name);
    END LOOP;
    DROP VIEW longshore_tenant.job_rows;
    DROP VIEW longshore_tenant.cost_lines;
    REVOKE USAGE ON SCHEMA longshore_tenant FROM longshore_tenant;
    DROP SCHEMA longshore_tenant;
    REVOKE SELECT ON jobs, settled_jobs, payloads, attempts, spend, charges, savings, cost_days, cost_tail, dead_causes,
                     dead_tail FROM longshore_tenant;
    EXECUTE format('REVOKE USAGE ON SCHEMA %I FROM longshore_tenant', current_schema());
END $$;

DROP FUNCTION guard_tenants();
DROP TABLE revoked_tokens;
