-- phase: pre
ALTER TABLE gathers ADD COLUMN lane text COLLATE "C" NOT NULL DEFAULT '';
