-- phase: pre
CREATE TABLE progress (
  run_id bytea PRIMARY KEY, at bigint NOT NULL, fraction float8, text text COLLATE "C" NOT NULL
);
