-- phase: pre
CREATE TABLE bulk_operations (
  id BLOB PRIMARY KEY, action TEXT NOT NULL, filter BLOB NOT NULL, actor TEXT NOT NULL, created_at INTEGER NOT NULL,
  state INTEGER NOT NULL, rate TEXT, total INTEGER NOT NULL, done INTEGER NOT NULL, skipped INTEGER NOT NULL,
  failed INTEGER NOT NULL, error TEXT, cursor BLOB NOT NULL, ended_at INTEGER
) STRICT, WITHOUT ROWID;
CREATE INDEX bulk_running ON bulk_operations (id) WHERE state = 0;

ALTER TABLE attempts ADD COLUMN input BLOB;
