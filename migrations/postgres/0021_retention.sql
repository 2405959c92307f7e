-- Retention: how far it is, how long results are kept whose jobs said so, and days that can be dropped without a look at their rows.

-- Who is at it. Whoever takes the turn raises `beat`, at the beat that was seen: that two do the same at once costs work and
-- nothing else. Orders are counted, so that nobody's clock has to agree with another's. `remains`: what the last run has left, and why.
CREATE TABLE retention_turn (
    one      smallint PRIMARY KEY CHECK (one = 1),
    beat     bigint   NOT NULL DEFAULT 0,
    orders   bigint   NOT NULL DEFAULT 0,
    taking   bigint   NOT NULL DEFAULT 0,
    served   bigint   NOT NULL DEFAULT 0,
    began_at bigint,
    ended_at bigint,
    due_at   bigint   NOT NULL DEFAULT 0,
    remains  text
);
INSERT INTO retention_turn (one) VALUES (1);

-- What has gone so far, by class. `edge`: all before it may be gone.
CREATE TABLE retention_notes (
    class   text   NOT NULL COLLATE "C" PRIMARY KEY,
    removed bigint NOT NULL DEFAULT 0,
    last    bigint NOT NULL DEFAULT 0,
    last_at bigint NOT NULL,
    edge    bigint
);

-- Jobs that have said how long their result is kept after their end. `look_at`: not earlier.
CREATE TABLE result_ttls (
    job_id  uuid   NOT NULL PRIMARY KEY,
    ttl_ms  bigint NOT NULL CHECK (ttl_ms > 0),
    look_at bigint NOT NULL
);
CREATE INDEX result_ttls_due ON result_ttls (look_at);

-- How long the settled jobs of a queue are kept. NULL: as all are.
ALTER TABLE queues ADD COLUMN retention_ms bigint CHECK (retention_ms > 0);

-- Keys are forgotten by age.
CREATE INDEX idempotency_keys_age ON idempotency_keys (created_at);

-- Jobs that ended more than a day after they were accepted: the others of a day have all ended two days after it began. Those of a day
-- outlive its table, and go in steps of their own: nobody waits for them under the lock that a table is dropped with.
CREATE TABLE late_ends (
    day     date   NOT NULL,
    ends_at bigint NOT NULL
);
CREATE INDEX late_ends_day ON late_ends (day, ends_at);

-- The day of an id.
CREATE FUNCTION day_of_id(id uuid) RETURNS date LANGUAGE sql IMMUTABLE STRICT AS $$
    SELECT DATE '1970-01-01' + (('x' || left(replace(id::text, '-', ''), 12))::bit(48)::bigint / 86400000)::integer
$$;

INSERT INTO late_ends (day, ends_at)
SELECT day_of_id(id), finished_at FROM settled_jobs
WHERE finished_at - accepted_at > 86400000;

CREATE FUNCTION note_late_end() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO late_ends (day, ends_at) VALUES (day_of_id(NEW.id), NEW.finished_at);
    RETURN NULL;
END $$;

-- Looked at in place: jobs that end within a day pay next to nothing.
CREATE TRIGGER late_end_noted AFTER INSERT ON settled_jobs
FOR EACH ROW WHEN (NEW.finished_at - NEW.accepted_at > 86400000) EXECUTE FUNCTION note_late_end();

-- The days before `before_ms` that have tables of their own, table by table, with what stands in the way of dropping them: the last
-- end of a job that ended late, and jobs that live or are dead letters (1,001 stand for more). Rows are those of the last
-- ANALYZE where there was one.
CREATE FUNCTION retention_days(before_ms bigint)
RETURNS TABLE (part text, day_ms bigint, row_count bigint, bytes bigint, last_end bigint, live bigint, dead bigint)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    leaf record;
    seen date;
BEGIN
    FOR leaf IN
        SELECT p.relname::text AS parent, c.relname::text AS name, c.oid, c.reltuples::bigint AS tuples,
               to_date(right(c.relname, 8), 'YYYYMMDD') AS day
        FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid JOIN pg_class p ON p.oid = i.inhparent
        WHERE p.oid IN (to_regclass('settled_jobs'), to_regclass('payloads'), to_regclass('attempts'), to_regclass('memos'))
              AND c.relname ~ '_[0-9]{8}$'
        ORDER BY 5, 1
    LOOP
        EXIT WHEN (leaf.day - DATE '1970-01-01')::bigint * 86400000 >= before_ms;
        IF seen IS DISTINCT FROM leaf.day THEN
            seen := leaf.day;
            SELECT max(l.ends_at) INTO last_end FROM late_ends l WHERE l.day = seen;
            SELECT count(*) FILTER (WHERE j.standing = 0), count(*) FILTER (WHERE j.standing = 2) INTO live, dead
            FROM (SELECT standing FROM jobs WHERE id >= first_id_of(seen) AND id < first_id_of(seen + 1) LIMIT 1001) j;
        END IF;
        part := leaf.parent;
        day_ms := (leaf.day - DATE '1970-01-01')::bigint * 86400000;
        bytes := pg_total_relation_size(leaf.oid);
        row_count := leaf.tuples;
        BEGIN
            IF row_count < 0 THEN
                EXECUTE format('SELECT count(*) FROM %I', leaf.name) INTO row_count;
            END IF;
        EXCEPTION
            -- Somebody has dropped it since this statement began.
            WHEN undefined_table THEN CONTINUE;
        END;
        IF bytes IS NOT NULL THEN
            RETURN NEXT;
        END IF;
    END LOOP;
END $$;

-- Takes the table of a day out of its parent, if all that is in it ended before `cutoff_ms` and no job of the day may run again: nobody sees
-- its rows any more. Returns its size in bytes; NULL where it is kept, or is not there. One table a transaction. Whoever works beside
-- it waits behind the lock on the whole table, so that is asked for a moment only, and nothing else is waited for: one that is in use
-- makes this fail, to be tried again much later. For the same reason the commit does not wait for the disk: a crash may bring
-- the day back, and it goes again.
CREATE FUNCTION retention_drop(part text, day_ms bigint, cutoff_ms bigint) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT SET lock_timeout = '50ms' AS $$
DECLARE
    its_day date := DATE '1970-01-01' + (day_ms / 86400000)::integer;
    leaf text := part || to_char(its_day, '_YYYYMMDD');
    bytes bigint;
BEGIN
    IF part NOT IN ('settled_jobs', 'payloads', 'attempts', 'memos') OR to_regclass(leaf) IS NULL
       OR day_ms + 2 * 86400000 > cutoff_ms THEN
        RETURN NULL;
    END IF;
    -- Nobody can put a row into the day from here on, so what is looked at stays true.
    EXECUTE format('LOCK TABLE ONLY %I IN ACCESS EXCLUSIVE MODE', part);
    IF NOT EXISTS (SELECT 1 FROM pg_inherits i WHERE i.inhrelid = to_regclass(leaf) AND i.inhparent = to_regclass(part))
       OR EXISTS (SELECT 1 FROM jobs WHERE id >= first_id_of(its_day) AND id < first_id_of(its_day + 1))
       OR EXISTS (SELECT 1 FROM late_ends l WHERE l.day = its_day AND l.ends_at >= cutoff_ms) THEN
        RETURN NULL;
    END IF;
    -- An autovacuum of one of them is not waited for. What a day's table goes from, the default one is told.
    EXECUTE format('LOCK TABLE %I IN ACCESS EXCLUSIVE MODE NOWAIT', part || '_default');
    EXECUTE format('LOCK TABLE %I IN ACCESS EXCLUSIVE MODE NOWAIT', leaf);
    PERFORM set_config('synchronous_commit', 'off', true);
    bytes := pg_total_relation_size(to_regclass(leaf));
    EXECUTE format('ALTER TABLE %I DETACH PARTITION %I', part, leaf);
    EXECUTE format('COMMENT ON TABLE %I IS %L', leaf, 'taken out by retention');
    RETURN bytes;
END $$;

-- Drops a table that was taken out above, also of whoever died before this, and says whether there was one: nobody works in it, so
-- nobody waits. One at a time: a disk that forgets a large file has little time for anybody else. What somebody has taken out by hand has
-- no such mark and stays; what is in use is left to another time.
CREATE FUNCTION retention_reclaim() RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT SET lock_timeout = '50ms' AS $$
DECLARE
    leaf regclass;
BEGIN
    FOR leaf IN
        SELECT c.oid FROM pg_class c
        WHERE c.relnamespace = (SELECT j.relnamespace FROM pg_class j WHERE j.oid = to_regclass('settled_jobs'))
              AND c.relkind = 'r' AND NOT c.relispartition AND c.relname ~ '^(settled_jobs|payloads|attempts|memos)_[0-9]{8}$'
              AND obj_description(c.oid, 'pg_class') = 'taken out by retention'
    LOOP
        BEGIN
            EXECUTE format('DROP TABLE %s', leaf);
            RETURN TRUE;
        EXCEPTION
            WHEN lock_not_available OR undefined_table THEN CONTINUE;
        END;
    END LOOP;
    RETURN FALSE;
END $$;

-- Days go by the functions above, which look at what they drop.
DROP FUNCTION drop_partitions(bigint);

-- Up to where the audit log was taken out, after it was written to objects: its last row that is not here, and how many there were.
CREATE TABLE audit_floor (
    one    smallint PRIMARY KEY CHECK (one = 1),
    day    integer  NOT NULL,
    seq    bigint   NOT NULL CHECK (seq >= 1),
    hash   bytea    NOT NULL CHECK (octet_length(hash) = 32),
    rows   bigint   NOT NULL CHECK (rows >= 1),
    path   text     NOT NULL COLLATE "C",
    sha256 bytea    NOT NULL CHECK (octet_length(sha256) = 32),
    at     bigint   NOT NULL
);

-- Rows up to the floor may go, and no others.
CREATE OR REPLACE FUNCTION audit_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' AND TG_TABLE_NAME = 'audit_log' THEN
        IF OLD.day <= (SELECT day FROM audit_floor) THEN
            RETURN OLD;
        END IF;
    END IF;
    RAISE EXCEPTION 'the audit log is only ever added to';
END $$;

-- Raises the floor to the end of a day. Only forward, only to an end that the log has, and never into the last year: whoever may call
-- it cannot hide what was done lately. Returns whether it was raised.
CREATE FUNCTION audit_raise_floor(to_day integer, to_seq bigint, to_hash bytea, gone bigint, object text, checksum bytea, now_ms bigint)
RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    raised bigint;
BEGIN
    IF to_day > (extract(epoch FROM clock_timestamp()) / 86400)::integer - 365
       OR NOT EXISTS (SELECT 1 FROM audit_heads h WHERE h.day = to_day AND h.seq = to_seq AND h.hash = to_hash) THEN
        RETURN FALSE;
    END IF;
    INSERT INTO audit_floor AS f (one, day, seq, hash, rows, path, sha256, at)
    VALUES (1, to_day, to_seq, to_hash, gone, object, checksum, now_ms)
    ON CONFLICT (one) DO UPDATE
    SET day = excluded.day, seq = excluded.seq, hash = excluded.hash, rows = f.rows + excluded.rows, path = excluded.path,
        sha256 = excluded.sha256, at = excluded.at
    WHERE f.day < excluded.day;
    GET DIAGNOSTICS raised = ROW_COUNT;
    RETURN raised > 0;
END $$;

-- Takes away rows up to the floor, at most `most`; how many.
CREATE FUNCTION audit_forget(most bigint) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    gone bigint;
BEGIN
    DELETE FROM audit_log WHERE (day, seq) IN (
        SELECT l.day, l.seq FROM audit_log l WHERE l.day <= (SELECT f.day FROM audit_floor f) ORDER BY l.day, l.seq LIMIT most);
    GET DIAGNOSTICS gone = ROW_COUNT;
    RETURN gone;
END $$;

-- They act with the owner's rights, so not everybody may call them.
REVOKE ALL ON FUNCTION retention_days(bigint), retention_drop(text, bigint, bigint), retention_reclaim(),
                       audit_raise_floor(integer, bigint, bytea, bigint, text, bytea, bigint), audit_forget(bigint) FROM PUBLIC;
