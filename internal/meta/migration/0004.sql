-- What this server has to remember of itself and of its bucket, by name (see
-- facts.go).
CREATE TABLE facts (
  name  TEXT PRIMARY KEY,
  value BLOB NOT NULL
) WITHOUT ROWID;

-- The objects of the log that are in this database and in no checkpoint yet:
-- exactly those that the next one replaces. Keys sort as the log does. A row for
-- each batch, written with it.
CREATE TABLE log_objects (key TEXT PRIMARY KEY) WITHOUT ROWID;

-- Paths that a recovery has met and whose cache or NAR it has not. Empty in a
-- database that serves.
CREATE TABLE waiting (
  cache      TEXT NOT NULL,
  hash       TEXT NOT NULL,
  store_path TEXT NOT NULL,
  why        TEXT NOT NULL,
  PRIMARY KEY (cache, hash)
) WITHOUT ROWID;

-- The packs that are in the bucket, while a recovery needs the list.
CREATE TABLE listed_packs (
  key  TEXT PRIMARY KEY,
  size INTEGER NOT NULL
) WITHOUT ROWID;
