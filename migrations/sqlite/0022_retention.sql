-- Retention: how far it is, how long results are kept whose jobs said so, and where the audit log begins.

-- Who is at it. Whoever takes the turn raises `beat`, at the beat that was seen. Orders are counted, so that nobody's clock has to
-- agree with another's.
CREATE TABLE retention_turn (
    one      INTEGER PRIMARY KEY CHECK (one = 1),
    beat     INTEGER NOT NULL DEFAULT 0,
    orders   INTEGER NOT NULL DEFAULT 0,
    taking   INTEGER NOT NULL DEFAULT 0,
    served   INTEGER NOT NULL DEFAULT 0,
    began_at INTEGER,
    ended_at INTEGER,
    due_at   INTEGER NOT NULL DEFAULT 0
) STRICT;
INSERT INTO retention_turn (one) VALUES (1);

-- What has gone so far, by class. `edge`: all before it may be gone.
CREATE TABLE retention_notes (
    class   TEXT    NOT NULL PRIMARY KEY,
    removed INTEGER NOT NULL DEFAULT 0,
    last    INTEGER NOT NULL DEFAULT 0,
    last_at INTEGER NOT NULL,
    edge    INTEGER
) STRICT, WITHOUT ROWID;

-- Jobs that have said how long their result is kept after their end. `look_at`: not earlier.
CREATE TABLE result_ttls (
    seq     INTEGER PRIMARY KEY,
    ttl_ms  INTEGER NOT NULL CHECK (ttl_ms > 0),
    look_at INTEGER NOT NULL
) STRICT;
CREATE INDEX result_ttls_due ON result_ttls (look_at);

-- How long the settled jobs of a queue are kept. NULL: as all are.
ALTER TABLE queues ADD COLUMN retention_ms INTEGER CHECK (retention_ms > 0);

-- Keys are forgotten by age.
CREATE INDEX idempotency_keys_age ON idempotency_keys (created_at);

-- Up to where the audit log was taken out, after it was written to objects: its last row that is not here, and how many there were.
CREATE TABLE audit_floor (
    one    INTEGER PRIMARY KEY CHECK (one = 1),
    day    INTEGER NOT NULL,
    seq    INTEGER NOT NULL CHECK (seq >= 1),
    hash   BLOB    NOT NULL CHECK (length(hash) = 32),
    rows   INTEGER NOT NULL CHECK (rows >= 1),
    path   TEXT    NOT NULL,
    sha256 BLOB    NOT NULL CHECK (length(sha256) = 32),
    at     INTEGER NOT NULL
) STRICT;

-- Rows up to the floor may go, and no others.
DROP TRIGGER audit_log_deleted;
CREATE TRIGGER audit_log_deleted BEFORE DELETE ON audit_log
WHEN OLD.day > coalesce((SELECT day FROM audit_floor), -1) BEGIN
    SELECT RAISE(ABORT, 'the audit log is only ever added to');
END;

-- The floor goes forward, to an end that the log has, and never into the last year.
CREATE TRIGGER audit_floor_begins BEFORE INSERT ON audit_floor
WHEN NEW.day > CAST(strftime('%s', 'now') AS INTEGER) / 86400 - 365
     OR NOT EXISTS (SELECT 1 FROM audit_heads h WHERE h.day = NEW.day AND h.seq = NEW.seq AND h.hash = NEW.hash) BEGIN
    SELECT RAISE(IGNORE);
END;
CREATE TRIGGER audit_floor_rises BEFORE UPDATE ON audit_floor
WHEN NEW.day <= OLD.day OR NEW.day > CAST(strftime('%s', 'now') AS INTEGER) / 86400 - 365
     OR NOT EXISTS (SELECT 1 FROM audit_heads h WHERE h.day = NEW.day AND h.seq = NEW.seq AND h.hash = NEW.hash) BEGIN
    SELECT RAISE(IGNORE);
END;
CREATE TRIGGER audit_floor_stays BEFORE DELETE ON audit_floor BEGIN
    SELECT RAISE(ABORT, 'the floor of the audit log only goes forward');
END;
