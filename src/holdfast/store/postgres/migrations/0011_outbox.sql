-- phase: pre
-- PostgreSQL only: events that the application's own transactions have sent. On SQLite that table is in the application's file.
CREATE TABLE outbox (id bytea PRIMARY KEY, event bytea NOT NULL) WITH (autovacuum_vacuum_scale_factor = 0.02);
