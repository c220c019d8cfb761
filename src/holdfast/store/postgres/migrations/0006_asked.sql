-- phase: pre
ALTER TABLE steps ADD COLUMN asked bytea;
