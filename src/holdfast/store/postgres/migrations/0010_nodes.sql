-- phase: pre
ALTER TABLE nodes ADD COLUMN host text NOT NULL DEFAULT '';
ALTER TABLE nodes ADD COLUMN pid bigint NOT NULL DEFAULT 0;
ALTER TABLE nodes ADD COLUMN version text NOT NULL DEFAULT '';
ALTER TABLE nodes ADD COLUMN ended_at timestamptz;
ALTER TABLE nodes ADD COLUMN stopped boolean NOT NULL DEFAULT false;
ALTER TABLE nodes ADD COLUMN settled boolean NOT NULL DEFAULT false;

ALTER TABLE node_leases ADD COLUMN seen timestamptz NOT NULL DEFAULT now();
ALTER TABLE node_leases ADD COLUMN in_flight bigint NOT NULL DEFAULT 0;
ALTER TABLE node_leases ADD COLUMN capacity bigint NOT NULL DEFAULT 0;
ALTER TABLE node_leases ADD COLUMN watching boolean NOT NULL DEFAULT false;
