-- Where a chunk lies: one row, whoever has it. So looking for it is the same work
-- whether nobody has it or a hundred caches have that the asker may not see. What
-- was stored again, since its pusher might not see the row's pack, is in copies,
-- and found by cache alone.
CREATE TABLE chunk (
  hash    BLOB PRIMARY KEY,
  pack_id INTEGER NOT NULL,
  entry   INTEGER NOT NULL,
  size    INTEGER NOT NULL,
  raw     INTEGER NOT NULL
) WITHOUT ROWID;
INSERT INTO chunk SELECT hash, pack_id, entry, size, raw FROM chunks c
  WHERE pack_id = (SELECT min(pack_id) FROM chunks o WHERE o.hash = c.hash);

-- The entries of a pack whose chunk had a row already.
CREATE TABLE copies (
  pack_id INTEGER NOT NULL,
  hash    BLOB NOT NULL,
  entry   INTEGER NOT NULL,
  size    INTEGER NOT NULL,
  raw     INTEGER NOT NULL,
  PRIMARY KEY (pack_id, hash)
) WITHOUT ROWID;
INSERT INTO copies SELECT pack_id, hash, entry, size, raw FROM chunks c
  WHERE pack_id > (SELECT min(pack_id) FROM chunks o WHERE o.hash = c.hash);

-- Those of them that a cache was shown, the one copy of each chunk that it uses.
CREATE TABLE shown_copies (
  cache_id INTEGER NOT NULL,
  hash     BLOB NOT NULL,
  pack_id  INTEGER NOT NULL,
  entry    INTEGER NOT NULL,
  size     INTEGER NOT NULL,
  raw      INTEGER NOT NULL,
  PRIMARY KEY (cache_id, hash)
) WITHOUT ROWID;
-- A cache that sees a part of such a pack sends that part again, once.
INSERT OR IGNORE INTO shown_copies SELECT v.cache_id, c.hash, c.pack_id, c.entry, c.size, c.raw
  FROM visible v JOIN copies c ON c.pack_id = v.pack_id WHERE v.bits IS NULL ORDER BY v.until IS NOT NULL;

DROP TABLE chunks;
ALTER TABLE chunk RENAME TO chunks;
