-- Packs that are not in the bucket as they were stored, wholly (bits NULL) or some
-- entries of them. scan is the id of the last NAR that was looked at for what it has
-- there; NULL: all were.
CREATE TABLE quarantine (
  pack_id  INTEGER PRIMARY KEY REFERENCES packs (id) ON DELETE CASCADE,
  bits     BLOB,
  why      TEXT NOT NULL,
  found_at INTEGER NOT NULL,
  scan     INTEGER
);

-- NARs that cannot be served: for what is in quarantine, or, with wrong, since what
-- they are put together of is not what their hash says. A table of its own: a flag
-- behind the layout would cost each narinfo the pages of the layout.
CREATE TABLE damaged (
  nar_id   INTEGER PRIMARY KEY REFERENCES nars (id) ON DELETE CASCADE,
  wrong    INTEGER NOT NULL,
  why      TEXT NOT NULL,
  found_at INTEGER NOT NULL
);

-- What a check reads first.
CREATE INDEX nars_unverified ON nars (id) WHERE verified = 0;
