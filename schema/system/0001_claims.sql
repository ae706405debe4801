-- The operator's own records. Only the admin role reads or writes this schema.

-- What was applied here.
CREATE TABLE schema_migrations (
    version int PRIMARY KEY,
    name text NOT NULL,
    checksum text NOT NULL, -- sha256 of the SQL, hexadecimal
    applied_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE claims (
    claim_id text PRIMARY KEY CHECK (claim_id ~ '^[0-9a-f]{16}$'),
    installation_id text NOT NULL,
    namespace text NOT NULL,
    name text NOT NULL,
    schema_name text NOT NULL,
    last_uid text NOT NULL,
    state text NOT NULL CHECK (state IN ('active', 'released', 'dropped')),
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);
-- A released claim still holds its schema; only one live tenant may carry a name in an installation.
CREATE UNIQUE INDEX claims_schema_name ON claims (schema_name) WHERE state <> 'dropped';
CREATE UNIQUE INDEX claims_active_name ON claims (installation_id, name) WHERE state = 'active';

CREATE TABLE leadership (
    id int PRIMARY KEY CHECK (id = 1),
    epoch bigint NOT NULL
);
INSERT INTO leadership VALUES (1, 0);

CREATE TABLE logins (
    role_name text PRIMARY KEY,
    claim_id text NOT NULL,
    purpose text NOT NULL CHECK (purpose IN ('app', 'maintenance')),
    generation int NOT NULL,
    password_digest bytea NOT NULL CHECK (octet_length(password_digest) = 32)
);

-- Rows to lock where PostgreSQL itself does not serialise. Not advisory locks: a tenant's login could hold those.
CREATE TABLE locks (
    name text PRIMARY KEY
);
INSERT INTO locks VALUES ('database_acl');
