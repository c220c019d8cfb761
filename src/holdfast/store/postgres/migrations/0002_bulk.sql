-- phase: pre
CREATE TABLE bulk_operations (
  id bytea PRIMARY KEY, action text COLLATE "C" NOT NULL, filter bytea NOT NULL, actor text COLLATE "C" NOT NULL,
  created_at bigint NOT NULL, state smallint NOT NULL, rate text COLLATE "C", total bigint NOT NULL, done bigint NOT NULL,
  skipped bigint NOT NULL, failed bigint NOT NULL, error text COLLATE "C", cursor bytea NOT NULL, ended_at bigint
);
CREATE INDEX bulk_running ON bulk_operations (id) WHERE state = 0;

ALTER TABLE attempts ADD COLUMN input bytea;
