-- Tokens that this server made, by their jti; never the tokens. Dropped a while
-- after they expired. expires_at NULL: never.
CREATE TABLE issued_tokens (
  jti        TEXT PRIMARY KEY,
  subject    TEXT NOT NULL,
  policies   TEXT NOT NULL,
  caches     TEXT NOT NULL,
  issued_at  INTEGER NOT NULL,
  expires_at INTEGER
) WITHOUT ROWID;
CREATE INDEX issued_tokens_expires ON issued_tokens (expires_at);

-- Tokens that are no good though their signature is, listed above or not. until
-- is the end of the token, after which nobody asks; NULL: unknown, so for good.
CREATE TABLE revoked_tokens (
  jti        TEXT PRIMARY KEY,
  revoked_at INTEGER NOT NULL,
  until      INTEGER
) WITHOUT ROWID;
CREATE INDEX revoked_tokens_until ON revoked_tokens (until);

-- Goes up with every change of revoked_tokens that is not a drop, so that a
-- server on the same database sees cheaply whether it has to read them again.
INSERT INTO counters (name, value) VALUES ('token_revocations', 0);

-- Keys that signed for a cache before its present one. Until its end a key signs
-- along; then sealed_key is emptied, and the row stays: no name of a key is used
-- twice.
CREATE TABLE old_keys (
  id         INTEGER PRIMARY KEY AUTOINCREMENT,
  cache_id   INTEGER NOT NULL REFERENCES caches (id),
  public_key TEXT NOT NULL,
  sealed_key BLOB NOT NULL,
  rotated_at INTEGER NOT NULL,
  until      INTEGER NOT NULL
);
CREATE INDEX old_keys_cache ON old_keys (cache_id);
