-- Times are microseconds since 1970, sizes are bytes, lists are lines of text.
-- AUTOINCREMENT: an id that was given out is never given again. A request that
-- holds the id of a deleted cache must not write into the next one.

CREATE TABLE counters (
  name  TEXT PRIMARY KEY,
  value INTEGER NOT NULL
) WITHOUT ROWID;

-- Sequence numbers of the log below this one may have been used.
INSERT INTO counters (name, value) VALUES ('log_seq', 1);

-- 0 to 1023: a batch of keys is one parameter that a join cuts up.
CREATE TABLE ordinals (i INTEGER PRIMARY KEY);
INSERT INTO ordinals (i)
  WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 1023)
  SELECT i FROM n;

CREATE TABLE caches (
  id            INTEGER PRIMARY KEY AUTOINCREMENT,
  name          TEXT NOT NULL UNIQUE,
  public_key    TEXT NOT NULL,
  sealed_key    BLOB NOT NULL,
  public        INTEGER NOT NULL,
  store_dir     TEXT NOT NULL,
  priority      INTEGER NOT NULL,
  upstream_keys TEXT NOT NULL,
  retention     INTEGER,
  created_at    INTEGER NOT NULL,
  deleted_at    INTEGER
);

-- The uid names a NAR in the log, where ids of this database mean nothing. The
-- form does not: two caches that may not see each other's packs have the same
-- form in different ones.
--
-- The layout is last: a row is read up to the last column that is asked for,
-- and a long layout lies on pages of its own.
CREATE TABLE nars (
  id         INTEGER PRIMARY KEY AUTOINCREMENT,
  uid        TEXT NOT NULL UNIQUE,
  form       BLOB NOT NULL,
  hash       BLOB NOT NULL,
  size       INTEGER NOT NULL,
  file_size  INTEGER NOT NULL,
  verified   INTEGER NOT NULL,
  created_at INTEGER NOT NULL,
  layout     BLOB NOT NULL
);
CREATE INDEX nars_hash ON nars (hash);

-- Rows are wide, so they keep a rowid and the unique index stays narrow: which
-- paths are missing is answered from the index alone.
CREATE TABLE paths (
  id         INTEGER PRIMARY KEY,
  cache_id   INTEGER NOT NULL REFERENCES caches (id),
  hash       TEXT NOT NULL,
  nar_id     INTEGER NOT NULL REFERENCES nars (id),
  store_path TEXT NOT NULL,
  refs       TEXT NOT NULL,
  upstream   TEXT NOT NULL,
  deriver    TEXT NOT NULL,
  system     TEXT NOT NULL,
  ca         TEXT NOT NULL,
  sigs       TEXT NOT NULL,
  created_by TEXT NOT NULL,
  created_at INTEGER NOT NULL,
  last_used  INTEGER NOT NULL,
  incomplete INTEGER NOT NULL,
  UNIQUE (cache_id, hash)
);
CREATE INDEX paths_nar ON paths (nar_id, cache_id);

CREATE TABLE packs (
  id         INTEGER PRIMARY KEY AUTOINCREMENT,
  key        TEXT NOT NULL UNIQUE,
  sha256     BLOB NOT NULL,
  size       INTEGER NOT NULL,
  own        INTEGER NOT NULL,
  prev       INTEGER NOT NULL,
  created_at INTEGER NOT NULL,
  nar_state  BLOB NOT NULL,
  idx        BLOB NOT NULL
);
CREATE INDEX packs_sha256 ON packs (sha256);

-- Where a chunk lies: its first entry in each pack that has it. No foreign key
-- to packs: it would need an index by pack, as large as the table, to delete a
-- pack, whose own index names its chunks anyhow.
CREATE TABLE chunks (
  hash    BLOB NOT NULL,
  pack_id INTEGER NOT NULL,
  entry   INTEGER NOT NULL,
  size    INTEGER NOT NULL,
  raw     INTEGER NOT NULL,
  PRIMARY KEY (hash, pack_id)
) WITHOUT ROWID;

-- What a cache may see of a pack: bit i (lowest first) of bits is entry i; NULL
-- means the whole pack. After until it sees nothing; NULL means for good.
CREATE TABLE visible (
  cache_id INTEGER NOT NULL REFERENCES caches (id),
  pack_id  INTEGER NOT NULL REFERENCES packs (id),
  bits     BLOB,
  until    INTEGER,
  PRIMARY KEY (cache_id, pack_id)
) WITHOUT ROWID;
CREATE INDEX visible_pack ON visible (pack_id);

-- Piece lists that span requests, in the parts they came in.
CREATE TABLE staged (
  cache_id   INTEGER NOT NULL REFERENCES caches (id),
  hash       TEXT NOT NULL,
  nar        BLOB NOT NULL,
  start      INTEGER NOT NULL,
  length     INTEGER NOT NULL,
  staged_at  INTEGER NOT NULL,
  data       BLOB NOT NULL,
  PRIMARY KEY (cache_id, hash, nar, start)
);
CREATE INDEX staged_at ON staged (staged_at);

-- ID tokens that were traded in, until they would have expired anyhow.
CREATE TABLE seen_tokens (
  issuer TEXT NOT NULL,
  jti    TEXT NOT NULL,
  until  INTEGER NOT NULL,
  PRIMARY KEY (issuer, jti)
) WITHOUT ROWID;
CREATE INDEX seen_tokens_until ON seen_tokens (until);
