-- phase: pre
CREATE TABLE progress (
  run_id BLOB PRIMARY KEY, at INTEGER NOT NULL, fraction REAL, text TEXT NOT NULL
) STRICT, WITHOUT ROWID;
