-- A second wall between tenants. Callers of a tenant read as the role `longshore_tenant`, in transactions that say whose they are
-- (`app.tenant`); row-level security then lets them see that tenant's rows and no other, whatever the statement says. Everybody
-- else sees what it saw: for them the policies are the constant TRUE, which the planner drops.
--
-- Roles belong to the server and not to the database. The journal's user becomes a member of `longshore_switch`, which does not
-- inherit: so it may become `longshore_tenant`, and is not bound by its policies otherwise. A superuser is never bound by
-- policies, and is once it has become that role.

-- Tokens that were taken back before their end; rows go once nobody would believe the token any more.
CREATE TABLE revoked_tokens (
    issuer     text   NOT NULL COLLATE "C",
    jti        text   NOT NULL COLLATE "C",
    expires_at bigint NOT NULL,
    PRIMARY KEY (issuer, jti)
);

CREATE INDEX revoked_tokens_end ON revoked_tokens (expires_at);

DO $$
DECLARE
    what text;
BEGIN
    FOREACH what IN ARRAY ARRAY['CREATE ROLE longshore_tenant NOLOGIN NOINHERIT', 'CREATE ROLE longshore_switch NOLOGIN NOINHERIT']
    LOOP
        CONTINUE WHEN EXISTS (SELECT 1 FROM pg_roles WHERE rolname = split_part(what, ' ', 3));
        BEGIN
            EXECUTE what;
        EXCEPTION
            -- Another database of the same server is migrated at this moment.
            WHEN duplicate_object OR unique_violation THEN NULL;
        END;
    END LOOP;
    FOREACH what IN ARRAY ARRAY['longshore_tenant longshore_switch', 'longshore_switch ' || current_user]
    LOOP
        CONTINUE WHEN EXISTS (
            SELECT 1 FROM pg_auth_members m
            WHERE m.roleid = split_part(what, ' ', 1)::regrole AND m.member = (
                SELECT oid FROM pg_roles WHERE rolname = substr(what, position(' ' IN what) + 1))
        );
        -- A superuser may become anybody.
        CONTINUE WHEN what LIKE 'longshore_switch %' AND (SELECT rolsuper FROM pg_roles WHERE rolname = current_user);
        BEGIN
            EXECUTE format('GRANT %I TO %I', split_part(what, ' ', 1), substr(what, position(' ' IN what) + 1));
        EXCEPTION
            WHEN duplicate_object OR unique_violation THEN NULL;
        END;
    END LOOP;
EXCEPTION
    WHEN insufficient_privilege THEN
        RAISE insufficient_privilege USING MESSAGE = format(
            'this role may not make roles: let an administrator run "CREATE ROLE longshore_tenant NOLOGIN NOINHERIT", '
            '"CREATE ROLE longshore_switch NOLOGIN NOINHERIT", "GRANT longshore_tenant TO longshore_switch" and '
            '"GRANT longshore_switch TO %s", then migrate again', quote_ident(current_user));
END $$;

-- Puts the wall around every table that says whose its rows are, and around some that say it otherwise, and gives the role the
-- same views under the same names in a schema of its own: it owns them, so that policies ask who reads and not who made the
-- view. A later step that adds such a table, or changes `job_rows` or `cost_lines`, ends with `SELECT guard_tenants()`.
CREATE FUNCTION guard_tenants() RETURNS void LANGUAGE plpgsql SET search_path FROM CURRENT SET client_min_messages = warning AS $$
DECLARE
    own text;
    wall text;
    name text;
BEGIN
    FOR name, own IN
        SELECT c.relname, CASE
            WHEN EXISTS (SELECT 1 FROM pg_attribute a
                         WHERE a.attrelid = c.oid AND a.attname = 'tenant' AND NOT a.attisdropped) THEN 'tenant'
            WHEN c.relname = 'tenants' THEN 'name'
            WHEN c.relname IN ('budgets', 'budget_alerts') THEN NULL
            ELSE '' END
        FROM pg_class c
        WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
    LOOP
        CONTINUE WHEN own = '';
        -- Asked once a statement, not once a row.
        wall := CASE WHEN own IS NULL THEN 'FALSE' ELSE
            format('%I = (SELECT current_setting(''app.tenant'', TRUE))', own) END;
        EXECUTE format('DROP POLICY IF EXISTS everybody ON %I', name);
        EXECUTE format('DROP POLICY IF EXISTS tenant_alone ON %I', name);
        EXECUTE format('CREATE POLICY everybody ON %I USING (TRUE) WITH CHECK (TRUE)', name);
        EXECUTE format('CREATE POLICY tenant_alone ON %I AS RESTRICTIVE TO longshore_tenant USING (%s)', name, wall);
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY', name);
    END LOOP;

    EXECUTE format('GRANT USAGE ON SCHEMA %I TO longshore_tenant', current_schema());
    GRANT SELECT ON jobs, settled_jobs, payloads, attempts, spend, charges, savings, cost_days, cost_tail, dead_causes,
                    dead_tail TO longshore_tenant;
    CREATE SCHEMA IF NOT EXISTS longshore_tenant;
    -- Only whoever may make something there can become its owner.
    GRANT USAGE, CREATE ON SCHEMA longshore_tenant TO longshore_tenant;
    FOREACH name IN ARRAY ARRAY['job_rows', 'cost_lines'] LOOP
        EXECUTE format('DROP VIEW IF EXISTS longshore_tenant.%I', name);
        EXECUTE format('CREATE VIEW longshore_tenant.%I AS %s', name, pg_get_viewdef(name::regclass));
        EXECUTE format('ALTER VIEW longshore_tenant.%I OWNER TO longshore_tenant', name);
    END LOOP;
    REVOKE CREATE ON SCHEMA longshore_tenant FROM longshore_tenant;
END $$;

REVOKE ALL ON FUNCTION guard_tenants() FROM PUBLIC;

SELECT guard_tenants();
