-- phase: pre
CREATE TABLE matched_waits (
  event_id BLOB NOT NULL, run_id BLOB NOT NULL, key TEXT NOT NULL, at INTEGER NOT NULL,
  PRIMARY KEY (event_id, run_id, key)
) STRICT, WITHOUT ROWID;
