-- When work that is due by the clock was last done, so that a machine that was
-- asleep finds at start what is overdue. Losing it costs a run too many.
CREATE TABLE chores (
  name   TEXT PRIMARY KEY,
  ran_at INTEGER NOT NULL
) WITHOUT ROWID;
