-- Names for what must stay. expires_at NULL: never. Expired pins hold nothing;
-- their rows go when the next pin is set.
CREATE TABLE pins (
  id         INTEGER PRIMARY KEY AUTOINCREMENT,
  cache_id   INTEGER NOT NULL REFERENCES caches (id),
  name       TEXT NOT NULL,
  keep       INTEGER NOT NULL,
  expires_at INTEGER,
  UNIQUE (cache_id, name)
);
CREATE INDEX pins_expire ON pins (expires_at) WHERE expires_at IS NOT NULL;

-- What a pin holds, n = 0 the newest. paths and size are of the closure, when it
-- was pinned: a closure does not change.
CREATE TABLE pin_revisions (
  pin_id     INTEGER NOT NULL REFERENCES pins (id),
  n          INTEGER NOT NULL,
  hash       TEXT NOT NULL,
  store_path TEXT NOT NULL,
  set_by     TEXT NOT NULL,
  policies   TEXT NOT NULL,
  set_at     INTEGER NOT NULL,
  paths      INTEGER NOT NULL,
  size       INTEGER NOT NULL,
  PRIMARY KEY (pin_id, n)
) WITHOUT ROWID;
CREATE INDEX pin_revisions_hash ON pin_revisions (hash);

-- Sums over paths by the day (since 1970, UTC) on which they came, so that nobody
-- has to read a million rows to say how many there are. Counted are paths up to an
-- id, those of a batch with one statement at its end: a trigger on each would take
-- as long as the row. What happens to paths that were counted, triggers see.
CREATE TABLE path_days (
  cache_id  INTEGER NOT NULL,
  day       INTEGER NOT NULL,
  paths     INTEGER NOT NULL,
  size      INTEGER NOT NULL,
  file_size INTEGER NOT NULL,
  PRIMARY KEY (cache_id, day)
) WITHOUT ROWID;
INSERT INTO counters (name, value) VALUES ('paths_counted', 0);

-- The id of a path that was the last one is given again.
CREATE TRIGGER path_uncounted AFTER DELETE ON paths
  WHEN OLD.id <= (SELECT value FROM counters WHERE name = 'paths_counted') BEGIN
  UPDATE path_days SET paths = paths - 1,
    size = size - (SELECT size FROM nars WHERE id = OLD.nar_id),
    file_size = file_size - (SELECT file_size FROM nars WHERE id = OLD.nar_id)
    WHERE cache_id = OLD.cache_id AND day = OLD.created_at / 86400000000;
  UPDATE counters SET value = min(value, (SELECT coalesce(max(id), 0) FROM paths)) WHERE name = 'paths_counted';
END;

CREATE TRIGGER path_recounted AFTER UPDATE OF nar_id, created_at ON paths
  WHEN OLD.id <= (SELECT value FROM counters WHERE name = 'paths_counted')
    AND (OLD.nar_id <> NEW.nar_id OR OLD.created_at <> NEW.created_at) BEGIN
  UPDATE path_days SET paths = paths - 1,
    size = size - (SELECT size FROM nars WHERE id = OLD.nar_id),
    file_size = file_size - (SELECT file_size FROM nars WHERE id = OLD.nar_id)
    WHERE cache_id = OLD.cache_id AND day = OLD.created_at / 86400000000;
  INSERT INTO path_days (cache_id, day, paths, size, file_size)
    SELECT NEW.cache_id, NEW.created_at / 86400000000, 1, size, file_size FROM nars WHERE id = NEW.nar_id
    ON CONFLICT (cache_id, day) DO UPDATE SET paths = paths + 1, size = size + excluded.size, file_size = file_size + excluded.file_size;
END;

-- Bytes that the entries of a pack decode to, beside its size: how far contents
-- were compressed.
ALTER TABLE packs ADD COLUMN raw INTEGER NOT NULL DEFAULT 0;
CREATE TEMP TABLE pack_raw AS SELECT pack_id, sum(raw) AS raw FROM chunks GROUP BY pack_id;
UPDATE packs SET raw = coalesce((SELECT r.raw FROM pack_raw r WHERE r.pack_id = packs.id), 0)
  WHERE id IN (SELECT pack_id FROM pack_raw);
DROP TABLE pack_raw;

CREATE TABLE pack_days (
  day   INTEGER PRIMARY KEY,
  packs INTEGER NOT NULL,
  size  INTEGER NOT NULL,
  raw   INTEGER NOT NULL
);

INSERT INTO pack_days (day, packs, size, raw)
  SELECT created_at / 86400000000, count(*), sum(size), sum(raw) FROM packs GROUP BY 1;

CREATE TRIGGER pack_counted AFTER INSERT ON packs BEGIN
  INSERT INTO pack_days (day, packs, size, raw) VALUES (NEW.created_at / 86400000000, 1, NEW.size, NEW.raw)
    ON CONFLICT (day) DO UPDATE SET packs = packs + 1, size = size + excluded.size, raw = raw + excluded.raw;
END;

CREATE TRIGGER pack_uncounted AFTER DELETE ON packs BEGIN
  UPDATE pack_days SET packs = packs - 1, size = size - OLD.size, raw = raw - OLD.raw
    WHERE day = OLD.created_at / 86400000000;
END;

-- What packs a cache has is a sum over its visible packs: without the rows of
-- packs, which are wide.
CREATE INDEX packs_size ON packs (id, size, raw);
