-- phase: pre
-- Where a change came from; and what is written stays as it was written, whatever a program tries.
ALTER TABLE audit ADD COLUMN origin TEXT NOT NULL DEFAULT '';
CREATE TRIGGER audit_no_update BEFORE UPDATE ON audit BEGIN
  SELECT RAISE(ABORT, 'entries of the audit log are only ever added');
END;
CREATE TRIGGER audit_no_delete BEFORE DELETE ON audit BEGIN
  SELECT RAISE(ABORT, 'entries of the audit log are only ever added');
END;
