-- A pack is live, condemned, deleting, gone. Live has no time in condemned; a condemned one is as good as a live one
-- and becomes live again when any of it is shown to a cache. One that is being deleted has a row in doomed alone, and
-- one that is gone has none. shown is the number of the collection that was the last to begin when any of the pack
-- was shown to a cache: what one collection has seen to be needed by nothing, is needed by nothing only if it is less
-- than its own. No row: 0.
CREATE TABLE pack_states (
  pack_id   INTEGER PRIMARY KEY REFERENCES packs (id) ON DELETE CASCADE,
  shown     INTEGER NOT NULL,
  condemned INTEGER
);
CREATE INDEX pack_states_condemned ON pack_states (condemned) WHERE condemned IS NOT NULL;

CREATE TABLE doomed (
  key  TEXT PRIMARY KEY,
  size INTEGER NOT NULL
) WITHOUT ROWID;

-- What was pushed, used or pinned since the collection began that watches. Empty while none does.
CREATE TABLE touched (
  seq      INTEGER PRIMARY KEY AUTOINCREMENT,
  cache_id INTEGER NOT NULL,
  hash     TEXT NOT NULL,
  UNIQUE (cache_id, hash)
);

-- Who does what only one may do at a time, and until when if nobody hears of him.
CREATE TABLE leases (
  name   TEXT PRIMARY KEY,
  holder TEXT NOT NULL,
  until  INTEGER NOT NULL
) WITHOUT ROWID;

-- The number of the last collection that began, and of the one that watches; 0: none.
INSERT INTO counters (name, value) VALUES ('collections', 0);
INSERT INTO counters (name, value) VALUES ('watching', 0);
