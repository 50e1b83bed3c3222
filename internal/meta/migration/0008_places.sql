-- Where a cache finds a chunk: a row for each pack that it was shown the chunk in,
-- by cache. So what the others have is on no way from a cache to its chunks, neither
-- when it looks for them nor when it gets them. There is no index by pack, which
-- would be as large as the table: a pack's own index names its chunks, and visible
-- the caches.
CREATE TABLE places (
  cache_id INTEGER NOT NULL,
  hash     BLOB NOT NULL,
  pack_id  INTEGER NOT NULL,
  entry    INTEGER NOT NULL,
  PRIMARY KEY (cache_id, hash, pack_id)
) WITHOUT ROWID;

-- Bit i of a bitmap is bit i % 4 of a hexadecimal digit: the second one of its byte,
-- or the first.
INSERT INTO places (cache_id, hash, pack_id, entry)
  SELECT v.cache_id, c.hash, c.pack_id, c.entry
  FROM (SELECT hash, pack_id, entry FROM chunks UNION ALL SELECT hash, pack_id, entry FROM copies) c
  JOIN visible v ON v.pack_id = c.pack_id
  WHERE v.bits IS NULL OR c.entry / 8 < length(v.bits)
    AND (instr('123456789ABCDEF', substr(hex(substr(v.bits, c.entry / 8 + 1, 1)), 2 - c.entry % 8 / 4, 1)) >> c.entry % 4) & 1;

DROP TABLE chunks;
DROP TABLE copies;
DROP TABLE shown_copies;

-- A pack is looked for by cache, too: by the SHA-256 of its file.
ALTER TABLE visible ADD COLUMN sha256 BLOB;
UPDATE visible SET sha256 = (SELECT p.sha256 FROM packs p WHERE p.id = visible.pack_id);
CREATE INDEX visible_sha256 ON visible (cache_id, sha256);
DROP INDEX packs_sha256;
