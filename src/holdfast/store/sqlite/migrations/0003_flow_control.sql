-- phase: pre
ALTER TABLE functions ADD COLUMN limits TEXT NOT NULL DEFAULT '{}';
ALTER TABLE runs ADD COLUMN batch INTEGER NOT NULL DEFAULT 0;
ALTER TABLE runs ADD COLUMN reason TEXT;
ALTER TABLE queue ADD COLUMN held TEXT NOT NULL DEFAULT '';
ALTER TABLE skips ADD COLUMN detail TEXT NOT NULL DEFAULT '';
ALTER TABLE lanes ADD COLUMN gate TEXT NOT NULL DEFAULT '';

CREATE TABLE run_counts (gate TEXT PRIMARY KEY, used INTEGER NOT NULL) STRICT, WITHOUT ROWID;

CREATE TABLE throttles (gate TEXT PRIMARY KEY, tat INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE INDEX throttles_by_tat ON throttles (tat);

CREATE TABLE windows (gate TEXT PRIMARY KEY, moments BLOB NOT NULL, expires INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE INDEX windows_by_expiry ON windows (expires);

CREATE TABLE singletons (
  function_id INTEGER NOT NULL, key TEXT NOT NULL, run_id BLOB NOT NULL, before BLOB, PRIMARY KEY (function_id, key)
) STRICT, WITHOUT ROWID;

CREATE TABLE gathers (
  function_id INTEGER NOT NULL, kind INTEGER NOT NULL, key TEXT NOT NULL, run_id BLOB NOT NULL, event_id BLOB NOT NULL,
  ts INTEGER NOT NULL, first_at INTEGER NOT NULL, due INTEGER NOT NULL, count INTEGER NOT NULL, bytes INTEGER NOT NULL,
  invoked INTEGER NOT NULL, PRIMARY KEY (function_id, kind, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX gathers_by_due ON gathers (due);
CREATE INDEX gathers_by_run ON gathers (run_id);
CREATE INDEX gathers_by_event ON gathers (event_id);

CREATE TABLE batch_events (
  run_id BLOB NOT NULL, position INTEGER NOT NULL, event_id BLOB NOT NULL, PRIMARY KEY (run_id, position)
) STRICT, WITHOUT ROWID;
CREATE INDEX batch_events_by_event ON batch_events (event_id);

CREATE TABLE alarms (
  run_id BLOB NOT NULL, kind INTEGER NOT NULL, at INTEGER NOT NULL, reason TEXT NOT NULL, by BLOB, PRIMARY KEY (run_id, kind)
) STRICT, WITHOUT ROWID;
CREATE INDEX alarms_by_at ON alarms (at);

CREATE TABLE alerts (
  function_id INTEGER NOT NULL, kind TEXT NOT NULL, raised_at INTEGER NOT NULL, value REAL NOT NULL, threshold REAL NOT NULL,
  PRIMARY KEY (function_id, kind)
) STRICT, WITHOUT ROWID;
