-- What was done by whom. Rows are only ever added: triggers refuse everything else. Each row carries the hash of the one before it
-- (`queue_core::audit`).

CREATE TABLE audit_log (
    -- The UTC day, counted from 1970, and the row's number in it.
    day        INTEGER NOT NULL,
    seq        INTEGER NOT NULL CHECK (seq >= 1),
    at         INTEGER NOT NULL,
    actor      TEXT,
    role       TEXT,
    tenant     TEXT,
    address    TEXT,
    action     TEXT    NOT NULL,
    subject    TEXT    NOT NULL,
    status     INTEGER NOT NULL,
    detail     TEXT    NOT NULL,
    request_id TEXT    NOT NULL,
    prev       BLOB    NOT NULL CHECK (length(prev) = 32),
    hash       BLOB    NOT NULL CHECK (length(hash) = 32),
    PRIMARY KEY (day, seq)
) STRICT, WITHOUT ROWID;

-- The last row of each day.
CREATE TABLE audit_heads (
    day  INTEGER NOT NULL PRIMARY KEY,
    seq  INTEGER NOT NULL CHECK (seq >= 1),
    hash BLOB    NOT NULL CHECK (length(hash) = 32)
) STRICT;

CREATE TRIGGER audit_log_changed BEFORE UPDATE ON audit_log BEGIN
    SELECT RAISE(ABORT, 'the audit log is only ever added to');
END;
CREATE TRIGGER audit_log_deleted BEFORE DELETE ON audit_log BEGIN
    SELECT RAISE(ABORT, 'the audit log is only ever added to');
END;
CREATE TRIGGER audit_heads_forward BEFORE UPDATE ON audit_heads WHEN NEW.day <> OLD.day OR NEW.seq <= OLD.seq BEGIN
    SELECT RAISE(ABORT, 'the end of the audit log only goes forward');
END;
CREATE TRIGGER audit_heads_deleted BEFORE DELETE ON audit_heads BEGIN
    SELECT RAISE(ABORT, 'the audit log is only ever added to');
END;
