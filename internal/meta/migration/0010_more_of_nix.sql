-- What a NAR holds, without the contents of its files (package nar, Skeleton), as
-- zstd frames. It is of the NAR, so it goes with it.
CREATE TABLE listings (
  nar_id   INTEGER PRIMARY KEY REFERENCES nars (id) ON DELETE CASCADE,
  skeleton BLOB NOT NULL
);

-- The build IDs that a NAR has debug information for, of its listing.
CREATE TABLE build_ids (
  build_id TEXT NOT NULL,
  nar_id   INTEGER NOT NULL REFERENCES listings (nar_id) ON DELETE CASCADE,
  PRIMARY KEY (build_id, nar_id)
) WITHOUT ROWID;
CREATE INDEX build_ids_nar ON build_ids (nar_id);

-- Build logs by the base name of their derivation, as zstd frames. size is of the
-- text, bytes. There is no index of paths by deriver, which would cost each path
-- seventy bytes; so which logs are nobody's is asked for all at once (LoneLogs).
CREATE TABLE build_logs (
  id         INTEGER PRIMARY KEY AUTOINCREMENT,
  cache_id   INTEGER NOT NULL REFERENCES caches (id),
  name       TEXT NOT NULL,
  size       INTEGER NOT NULL,
  created_by TEXT NOT NULL,
  created_at INTEGER NOT NULL,
  data       BLOB NOT NULL,
  UNIQUE (cache_id, name)
);

-- What an output of a content-addressed derivation was when it was built, as Nix
-- wrote it. It goes with the path that it names.
CREATE TABLE realisations (
  id         INTEGER PRIMARY KEY AUTOINCREMENT,
  cache_id   INTEGER NOT NULL REFERENCES caches (id),
  name       TEXT NOT NULL,
  out_hash   TEXT NOT NULL,
  created_by TEXT NOT NULL,
  created_at INTEGER NOT NULL,
  text       TEXT NOT NULL,
  UNIQUE (cache_id, name)
);
CREATE INDEX realisations_out ON realisations (cache_id, out_hash);

CREATE TRIGGER realisations_dropped AFTER DELETE ON paths BEGIN
  DELETE FROM realisations WHERE cache_id = OLD.cache_id AND out_hash = OLD.hash;
END;
