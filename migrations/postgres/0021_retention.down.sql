-- Undoes 0020_retention.sql. Audit rows that were taken out stay out, and the log then begins behind them; results that have said how
-- long they are kept are kept as long as their jobs.
DROP FUNCTION audit_forget(bigint);
DROP FUNCTION audit_raise_floor(integer, bigint, bytea, bigint, text, bytea, bigint);
CREATE OR REPLACE FUNCTION audit_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the audit log is only ever added to';
END $$;
DROP TABLE audit_floor;
CREATE FUNCTION drop_partitions(before_ms bigint) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    stop date := DATE '1970-01-01' + (before_ms / 86400000)::integer;
    day date;
    parent text;
    dropped integer := 0;
BEGIN
    PERFORM pg_advisory_xact_lock(x'4c53484f'::integer, 2);
    FOR day IN
        SELECT to_date(right(c.relname, 8), 'YYYYMMDD')
        FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
        WHERE i.inhparent = to_regclass('payloads') AND c.relname ~ '_[0-9]{8}$'
        ORDER BY 1
    LOOP
        EXIT WHEN day >= stop;
        CONTINUE WHEN EXISTS (SELECT 1 FROM jobs WHERE id >= first_id_of(day) AND id < first_id_of(day + 1));
        FOREACH parent IN ARRAY ARRAY['settled_jobs', 'attempts', 'memos', 'payloads'] LOOP
            IF to_regclass(parent || to_char(day, '_YYYYMMDD')) IS NOT NULL THEN
                EXECUTE format('DROP TABLE %I', parent || to_char(day, '_YYYYMMDD'));
                dropped := dropped + 1;
            END IF;
        END LOOP;
    END LOOP;
    RETURN dropped;
END $$;
REVOKE ALL ON FUNCTION drop_partitions(bigint) FROM PUBLIC;
DO $$ BEGIN WHILE retention_reclaim() LOOP END LOOP; END $$;
DROP FUNCTION retention_reclaim();
DROP FUNCTION retention_drop(text, bigint, bigint);
DROP FUNCTION retention_days(bigint);
DROP TRIGGER late_end_noted ON settled_jobs;
DROP FUNCTION note_late_end();
DROP FUNCTION day_of_id(uuid);
DROP TABLE late_ends;
DROP INDEX idempotency_keys_age;
ALTER TABLE queues DROP COLUMN retention_ms;
DROP TABLE result_ttls;
DROP TABLE retention_notes;
DROP TABLE retention_turn;
