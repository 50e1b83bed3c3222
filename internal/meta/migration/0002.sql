-- Trust policies beside those of server.toml. The text is the policy as JSON
-- (package trust reads it): the database has no opinion about what is in it.
CREATE TABLE policies (
  name       TEXT PRIMARY KEY,
  policy     TEXT NOT NULL,
  created_at INTEGER NOT NULL,
  created_by TEXT NOT NULL
) WITHOUT ROWID;

-- Goes up with every change of the table, so that whoever keeps the policies in
-- memory asks for one number.
INSERT INTO counters (name, value) VALUES ('policies', 0);
