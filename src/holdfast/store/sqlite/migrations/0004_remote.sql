-- phase: pre
ALTER TABLE runs ADD COLUMN remote TEXT;

CREATE TABLE apps (
  name TEXT PRIMARY KEY, url TEXT NOT NULL, sdk TEXT NOT NULL, framework TEXT NOT NULL, version TEXT,
  checksum TEXT NOT NULL, method TEXT NOT NULL, error TEXT, synced_at INTEGER NOT NULL, created_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
