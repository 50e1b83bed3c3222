-- The compressed NARs that Nix has uploaded, by their SHA-256, and the paths that
-- they became: whoever uploaded one asks for it by that name for as long as he
-- remembers his own narinfo. No record: losing it costs him a question anew.
CREATE TABLE uploaded_files (
  cache_id INTEGER NOT NULL,
  file     BLOB NOT NULL,
  hash     TEXT NOT NULL,
  PRIMARY KEY (cache_id, file, hash)
) WITHOUT ROWID;
CREATE INDEX uploaded_files_hash ON uploaded_files (cache_id, hash);

CREATE TRIGGER uploaded_files_dropped AFTER DELETE ON paths BEGIN
  DELETE FROM uploaded_files WHERE cache_id = OLD.cache_id AND hash = OLD.hash;
END;
