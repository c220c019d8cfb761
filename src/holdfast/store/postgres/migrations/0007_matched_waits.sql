-- phase: pre
CREATE TABLE matched_waits (
  event_id bytea NOT NULL, run_id bytea NOT NULL, key text NOT NULL, at int8 NOT NULL,
  PRIMARY KEY (event_id, run_id, key)
);
