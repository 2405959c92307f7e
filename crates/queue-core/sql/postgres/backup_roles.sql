-- Purpose:   makes the roles that a dump of the journal names, as 0015_tenants does: they belong to the server and are in no dump.
-- Arguments: none; a script.
-- Returns:   nothing.
-- Invariant: those that are there stay as they are.
DO $$
DECLARE
    what text;
BEGIN
    FOREACH what IN ARRAY ARRAY['longshore_tenant', 'longshore_switch'] LOOP
        CONTINUE WHEN to_regrole(what) IS NOT NULL;
        BEGIN
            EXECUTE format('CREATE ROLE %I NOLOGIN NOINHERIT', what);
        EXCEPTION
            WHEN duplicate_object OR unique_violation THEN NULL;
        END;
    END LOOP;
    IF NOT pg_has_role('longshore_switch', 'longshore_tenant', 'MEMBER') THEN
        GRANT longshore_tenant TO longshore_switch;
    END IF;
    IF NOT pg_has_role(current_user, 'longshore_switch', 'MEMBER') THEN
        EXECUTE format('GRANT longshore_switch TO %I', current_user);
    END IF;
EXCEPTION
    WHEN insufficient_privilege THEN
        RAISE insufficient_privilege USING MESSAGE = format(
            'this role may not make roles: let an administrator run "CREATE ROLE longshore_tenant NOLOGIN NOINHERIT", '
            '"CREATE ROLE longshore_switch NOLOGIN NOINHERIT", "GRANT longshore_tenant TO longshore_switch" and '
            '"GRANT longshore_switch TO %s", then restore again', quote_ident(current_user));
END $$
