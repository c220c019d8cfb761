-- phase: pre
ALTER TABLE gathers ADD COLUMN lane TEXT NOT NULL DEFAULT '';
