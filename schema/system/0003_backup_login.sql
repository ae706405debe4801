-- Backups have a login of their own.
ALTER TABLE logins
    DROP CONSTRAINT logins_purpose_check,
    ADD CHECK (purpose IN ('app', 'maintenance', 'backup'));
