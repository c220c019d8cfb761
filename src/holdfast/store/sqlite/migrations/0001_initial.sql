-- phase: pre
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;

CREATE TABLE functions (
  id INTEGER PRIMARY KEY, app TEXT NOT NULL, slug TEXT NOT NULL UNIQUE, name TEXT NOT NULL, version INTEGER NOT NULL,
  config TEXT NOT NULL, archived INTEGER NOT NULL DEFAULT 0, paused INTEGER NOT NULL DEFAULT 0, created_at INTEGER NOT NULL
) STRICT;

CREATE TABLE events (
  id BLOB PRIMARY KEY, name TEXT NOT NULL, ts INTEGER NOT NULL, received_at INTEGER NOT NULL, data BLOB NOT NULL,
  key TEXT, meta BLOB, source BLOB
) STRICT, WITHOUT ROWID;
CREATE INDEX events_by_name ON events (name, id);
CREATE INDEX events_by_key ON events (key) WHERE key IS NOT NULL;

CREATE TABLE runs (
  id BLOB PRIMARY KEY, function_id INTEGER NOT NULL, event_id BLOB NOT NULL, status INTEGER NOT NULL,
  queued_at INTEGER NOT NULL, started_at INTEGER, ended_at INTEGER, lane TEXT NOT NULL, priority INTEGER NOT NULL,
  version INTEGER NOT NULL, parent_id BLOB, parent_step TEXT, origin INTEGER NOT NULL, attempt INTEGER NOT NULL,
  steps INTEGER NOT NULL, error TEXT, key TEXT
) STRICT, WITHOUT ROWID;
CREATE INDEX runs_by_function ON runs (function_id, id);
CREATE INDEX runs_by_event ON runs (event_id);
CREATE INDEX runs_by_parent ON runs (parent_id) WHERE parent_id IS NOT NULL;
CREATE INDEX runs_not_completed ON runs (status, id) WHERE status > 2;

CREATE TABLE queue (
  id BLOB PRIMARY KEY, run_id BLOB NOT NULL, state INTEGER NOT NULL, lane TEXT NOT NULL, rank INTEGER NOT NULL,
  due INTEGER NOT NULL, owner INTEGER NOT NULL, epoch INTEGER NOT NULL, attempt INTEGER NOT NULL,
  crashes INTEGER NOT NULL, woken INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX queue_ready ON queue (lane, rank, id) WHERE state = 0;
CREATE INDEX queue_timers ON queue (due) WHERE state = 1;

CREATE TABLE lanes (
  lane TEXT PRIMARY KEY, turn INTEGER NOT NULL, blocked INTEGER NOT NULL, until INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX lanes_by_turn ON lanes (turn) WHERE blocked = 0;

CREATE TABLE steps (
  run_id BLOB NOT NULL, key TEXT NOT NULL, seq INTEGER NOT NULL, state INTEGER NOT NULL, kind INTEGER NOT NULL,
  started_at INTEGER NOT NULL, ended_at INTEGER, attempt INTEGER NOT NULL, due INTEGER, data BLOB, error BLOB, type TEXT,
  name TEXT, PRIMARY KEY (run_id, key)
) STRICT, WITHOUT ROWID;

CREATE TABLE attempts (
  run_id BLOB NOT NULL, key TEXT NOT NULL, attempt INTEGER NOT NULL, started_at INTEGER NOT NULL,
  ended_at INTEGER NOT NULL, retry_at INTEGER, error BLOB NOT NULL, PRIMARY KEY (run_id, key, attempt)
) STRICT, WITHOUT ROWID;

CREATE TABLE waits (
  run_id BLOB NOT NULL, key TEXT NOT NULL, lookup TEXT NOT NULL, expires INTEGER, expression TEXT,
  context BLOB, created_at INTEGER NOT NULL, PRIMARY KEY (run_id, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX waits_by_lookup ON waits (lookup);

CREATE TABLE dedupe (
  function_id INTEGER NOT NULL, key TEXT NOT NULL, run_id BLOB NOT NULL, expires INTEGER NOT NULL,
  PRIMARY KEY (function_id, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX dedupe_by_expiry ON dedupe (expires);

CREATE TABLE skips (
  event_id BLOB NOT NULL, function_id INTEGER NOT NULL, reason TEXT NOT NULL, run_id BLOB, at INTEGER NOT NULL,
  PRIMARY KEY (event_id, function_id)
) STRICT, WITHOUT ROWID;

CREATE TABLE dead_letters (
  run_id BLOB PRIMARY KEY, function_id INTEGER NOT NULL, at INTEGER NOT NULL, fingerprint TEXT NOT NULL,
  error TEXT NOT NULL, state INTEGER NOT NULL, redriven_as BLOB, resolved_at INTEGER
) STRICT, WITHOUT ROWID;
CREATE INDEX dead_letters_by_state ON dead_letters (state, fingerprint, run_id);

CREATE TABLE crons (
  function_id INTEGER NOT NULL, schedule TEXT NOT NULL, next_at INTEGER NOT NULL, last_at INTEGER,
  missed INTEGER NOT NULL, PRIMARY KEY (function_id, schedule)
) STRICT, WITHOUT ROWID;

CREATE TABLE cron_fires (
  function_id INTEGER NOT NULL, schedule TEXT NOT NULL, occurrence INTEGER NOT NULL, run_id BLOB, at INTEGER NOT NULL,
  PRIMARY KEY (function_id, schedule, occurrence)
) STRICT, WITHOUT ROWID;

CREATE TABLE logs (
  run_id BLOB NOT NULL, seq INTEGER NOT NULL, at INTEGER NOT NULL, level INTEGER NOT NULL, message TEXT NOT NULL,
  step TEXT, PRIMARY KEY (run_id, seq)
) STRICT, WITHOUT ROWID;

CREATE TABLE notes (
  run_id BLOB NOT NULL, seq INTEGER NOT NULL, at INTEGER NOT NULL, text TEXT NOT NULL, PRIMARY KEY (run_id, seq)
) STRICT, WITHOUT ROWID;

CREATE TABLE audit (
  id BLOB PRIMARY KEY, at INTEGER NOT NULL, actor TEXT NOT NULL, action TEXT NOT NULL, target TEXT NOT NULL,
  detail TEXT NOT NULL
) STRICT, WITHOUT ROWID;
