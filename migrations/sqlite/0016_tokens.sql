-- Tokens that were taken back before their end; rows go once nobody would believe the token any more.
CREATE TABLE revoked_tokens (
    issuer     TEXT    NOT NULL,
    jti        TEXT    NOT NULL,
    expires_at INTEGER NOT NULL,
    PRIMARY KEY (issuer, jti)
) STRICT, WITHOUT ROWID;

CREATE INDEX revoked_tokens_end ON revoked_tokens (expires_at);
