-- phase: pre
ALTER TABLE runs ADD COLUMN remote text COLLATE "C";

CREATE TABLE apps (
  name text COLLATE "C" PRIMARY KEY, url text NOT NULL, sdk text NOT NULL, framework text NOT NULL, version text,
  checksum text NOT NULL, method text NOT NULL, error text, synced_at bigint NOT NULL, created_at bigint NOT NULL
);
