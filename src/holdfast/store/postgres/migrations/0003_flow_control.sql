-- phase: pre
ALTER TABLE functions ADD COLUMN limits text NOT NULL DEFAULT '{}';
ALTER TABLE runs ADD COLUMN batch bigint NOT NULL DEFAULT 0;
ALTER TABLE runs ADD COLUMN reason text COLLATE "C";
ALTER TABLE queue ADD COLUMN held text COLLATE "C" NOT NULL DEFAULT '';
ALTER TABLE skips ADD COLUMN detail text COLLATE "C" NOT NULL DEFAULT '';
ALTER TABLE lanes ADD COLUMN gate text COLLATE "C" NOT NULL DEFAULT '';
CREATE INDEX lanes_by_gate ON lanes (gate, turn) WHERE blocked = 1;
CREATE INDEX lanes_by_until ON lanes (until) WHERE blocked = 2;

-- PostgreSQL only: leases outlive a process here, and so do their counts
CREATE TABLE lease_counts (gate text COLLATE "C" PRIMARY KEY, used bigint NOT NULL) WITH (fillfactor = 50);

CREATE TABLE run_counts (gate text COLLATE "C" PRIMARY KEY, used bigint NOT NULL) WITH (fillfactor = 50);

CREATE TABLE throttles (gate text COLLATE "C" PRIMARY KEY, tat bigint NOT NULL);
CREATE INDEX throttles_by_tat ON throttles (tat);

CREATE TABLE windows (gate text COLLATE "C" PRIMARY KEY, moments bytea NOT NULL, expires bigint NOT NULL);
CREATE INDEX windows_by_expiry ON windows (expires);

CREATE TABLE singletons (
  function_id bigint NOT NULL, key text COLLATE "C" NOT NULL, run_id bytea NOT NULL, before bytea,
  PRIMARY KEY (function_id, key)
);

CREATE TABLE gathers (
  function_id bigint NOT NULL, kind smallint NOT NULL, key text COLLATE "C" NOT NULL, run_id bytea NOT NULL,
  event_id bytea NOT NULL, ts bigint NOT NULL, first_at bigint NOT NULL, due bigint NOT NULL, count bigint NOT NULL,
  bytes bigint NOT NULL, invoked smallint NOT NULL, PRIMARY KEY (function_id, kind, key)
);
CREATE INDEX gathers_by_due ON gathers (due);
CREATE INDEX gathers_by_run ON gathers (run_id);
CREATE INDEX gathers_by_event ON gathers (event_id);

CREATE TABLE batch_events (
  run_id bytea NOT NULL, position bigint NOT NULL, event_id bytea NOT NULL, PRIMARY KEY (run_id, position)
);
CREATE INDEX batch_events_by_event ON batch_events (event_id);

CREATE TABLE alarms (
  run_id bytea NOT NULL, kind smallint NOT NULL, at bigint NOT NULL, reason text COLLATE "C" NOT NULL, by bytea,
  PRIMARY KEY (run_id, kind)
);
CREATE INDEX alarms_by_at ON alarms (at);

CREATE TABLE alerts (
  function_id bigint NOT NULL, kind text COLLATE "C" NOT NULL, raised_at bigint NOT NULL, value double precision NOT NULL,
  threshold double precision NOT NULL, PRIMARY KEY (function_id, kind)
);
