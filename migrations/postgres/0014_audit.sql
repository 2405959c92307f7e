-- What was done by whom. Rows are only ever added: a trigger refuses everything else, and the service needs no more rights on the
-- table than INSERT and SELECT. Each row carries the hash of the one before it (`queue_core::audit`).

CREATE TABLE audit_log (
    -- The UTC day, counted from 1970, and the row's number in it.
    day        integer NOT NULL,
    seq        bigint  NOT NULL CHECK (seq >= 1),
    at         bigint  NOT NULL,
    actor      text    COLLATE "C",
    role       text    COLLATE "C",
    tenant     text    COLLATE "C",
    address    text    COLLATE "C",
    action     text    NOT NULL COLLATE "C",
    subject    text    NOT NULL COLLATE "C",
    status     integer NOT NULL,
    detail     text    NOT NULL COLLATE "C",
    request_id text    NOT NULL COLLATE "C",
    prev       bytea   NOT NULL CHECK (octet_length(prev) = 32),
    hash       bytea   NOT NULL CHECK (octet_length(hash) = 32),
    PRIMARY KEY (day, seq)
);

-- The last row of each day.
CREATE TABLE audit_heads (
    day  integer NOT NULL PRIMARY KEY,
    seq  bigint  NOT NULL CHECK (seq >= 1),
    hash bytea   NOT NULL CHECK (octet_length(hash) = 32)
);

CREATE FUNCTION audit_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the audit log is only ever added to';
END $$;

-- A head only goes forward: set back, every row that follows would be refused.
CREATE FUNCTION audit_forward() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.day <> OLD.day OR NEW.seq <= OLD.seq THEN
        RAISE EXCEPTION 'the end of the audit log only goes forward';
    END IF;
    RETURN NEW;
END $$;

CREATE TRIGGER audit_heads_forward BEFORE UPDATE ON audit_heads FOR EACH ROW EXECUTE FUNCTION audit_forward();
CREATE TRIGGER audit_log_rows BEFORE UPDATE OR DELETE ON audit_log FOR EACH ROW EXECUTE FUNCTION audit_refuse();
CREATE TRIGGER audit_log_whole BEFORE TRUNCATE ON audit_log FOR EACH STATEMENT EXECUTE FUNCTION audit_refuse();
CREATE TRIGGER audit_heads_rows BEFORE DELETE ON audit_heads FOR EACH ROW EXECUTE FUNCTION audit_refuse();
CREATE TRIGGER audit_heads_whole BEFORE TRUNCATE ON audit_heads FOR EACH STATEMENT EXECUTE FUNCTION audit_refuse();
