-- Who may act: users, their sessions and refresh tokens; before them what migrations and triggers write to.

-- What was applied here; version 0 is the repeatable part.
CREATE TABLE schema_migrations (
    version int PRIMARY KEY,
    name text NOT NULL,
    checksum text NOT NULL, -- sha256 of the SQL, hexadecimal
    applied_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE _changes (
    seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
    table_name text NOT NULL,
    op text NOT NULL CHECK (op IN ('insert', 'update', 'delete')),
    pk jsonb NOT NULL,
    image jsonb -- null for a delete
);
CREATE INDEX _changes_xid ON _changes (xid);

CREATE TABLE users (
    id uuid PRIMARY KEY,
    email text NOT NULL,
    email_normalized text NOT NULL UNIQUE,
    name text NOT NULL,
    password_hash text NOT NULL,
    status text NOT NULL CHECK (status IN ('active', 'disabled')),
    email_verified_at timestamptz,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL
);

CREATE TABLE sessions (
    id uuid PRIMARY KEY,
    user_id uuid NOT NULL,
    created_at timestamptz NOT NULL,
    last_seen_at timestamptz NOT NULL,
    idle_expires_at timestamptz NOT NULL,
    absolute_expires_at timestamptz NOT NULL,
    revoked_at timestamptz,
    revoke_reason text,
    user_agent text,
    ip inet
);
CREATE INDEX sessions_user ON sessions (user_id);
CREATE INDEX sessions_expiry ON sessions (absolute_expires_at);

CREATE TABLE refresh_tokens (
    hash bytea PRIMARY KEY CHECK (octet_length(hash) = 32),
    session_id uuid NOT NULL,
    seq int NOT NULL,
    first_used_at timestamptz,
    expires_at timestamptz NOT NULL,
    UNIQUE (session_id, seq)
);
CREATE INDEX refresh_tokens_expiry ON refresh_tokens (expires_at);
