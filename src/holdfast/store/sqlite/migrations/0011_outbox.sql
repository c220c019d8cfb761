-- phase: pre
-- Used on PostgreSQL only. Here it keeps, in a backup, what was sent and not taken yet.
CREATE TABLE outbox (id BLOB PRIMARY KEY, event BLOB NOT NULL) STRICT, WITHOUT ROWID;
