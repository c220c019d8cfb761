-- phase: pre
-- Where a change came from; and what is written stays as it was written, whatever a program tries.
ALTER TABLE audit ADD COLUMN origin text COLLATE "C" NOT NULL DEFAULT '';
CREATE FUNCTION audit_stays() RETURNS trigger LANGUAGE plpgsql AS
  $$ BEGIN RAISE EXCEPTION 'entries of the audit log are only ever added'; END $$;
CREATE TRIGGER audit_no_change BEFORE UPDATE OR DELETE ON audit FOR EACH ROW EXECUTE FUNCTION audit_stays();
CREATE TRIGGER audit_no_truncate BEFORE TRUNCATE ON audit FOR EACH STATEMENT EXECUTE FUNCTION audit_stays();
