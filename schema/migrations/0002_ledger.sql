-- The books. No foreign keys here: they cost more than twice the time per transfer, and the verifier proves what they would.

CREATE TABLE accounts (
    id bigint PRIMARY KEY, -- the sequence of the journal that opened it
    epoch int NOT NULL,
    owner_id uuid,
    kind text NOT NULL,
    type text NOT NULL CHECK (type IN ('checking', 'savings', 'business', 'investment', 'settlement')),
    currency char(3) NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
    name text NOT NULL,
    status text NOT NULL CHECK (status IN ('active', 'frozen', 'closed')),
    minimum_balance bigint, -- null: may go negative without limit
    created_at timestamptz NOT NULL,
    CHECK (CASE kind
        WHEN 'customer' THEN owner_id IS NOT NULL AND minimum_balance IS NOT NULL AND type <> 'settlement'
        WHEN 'settlement' THEN owner_id IS NULL AND minimum_balance IS NULL AND type = 'settlement'
        ELSE false
    END)
);
CREATE UNIQUE INDEX accounts_settlement ON accounts (currency) WHERE kind = 'settlement';
CREATE INDEX accounts_owner ON accounts (owner_id, id) WHERE owner_id IS NOT NULL;

CREATE TABLE account_balances (
    account_id bigint PRIMARY KEY,
    posted bigint NOT NULL,
    held bigint NOT NULL,
    version bigint NOT NULL, -- the seq of the account's last entry
    updated_at timestamptz NOT NULL
) WITH (fillfactor = 70);

CREATE TABLE journals (
    sequence bigint PRIMARY KEY CHECK (sequence > 0),
    epoch int NOT NULL,
    kind text NOT NULL CHECK (kind IN ('account_opened', 'deposit', 'withdrawal', 'transfer')),
    booked_at timestamptz NOT NULL,
    actor uuid NOT NULL,
    currency char(3) NOT NULL,
    amount bigint NOT NULL CHECK (amount BETWEEN 0 AND 9007199254740991), -- 2^53-1, what JSON carries exactly
    description text,
    category text,
    reference text
);

CREATE TABLE entries (
    account_id bigint NOT NULL,
    seq bigint NOT NULL CHECK (seq > 0), -- the account's version after this entry
    sequence bigint NOT NULL, -- the journal
    leg smallint NOT NULL CHECK (leg IN (0, 1)), -- 0 source, 1 destination
    posted_delta bigint NOT NULL,
    held_delta bigint NOT NULL,
    posted_after bigint NOT NULL,
    held_after bigint NOT NULL,
    PRIMARY KEY (account_id, seq)
);
CREATE INDEX entries_sequence ON entries (sequence);

CREATE TABLE ledger_head (
    id int PRIMARY KEY CHECK (id = 1),
    epoch int NOT NULL,
    sequence bigint NOT NULL,
    head_time timestamptz NOT NULL
);
-- Public ids hold the epoch: from a random start, the ids of two tenants do not coincide. Restores count up from it.
INSERT INTO ledger_head VALUES (1, 1 + floor(random() * 2000000000)::int, 0, 'epoch');

CREATE TABLE idempotency_keys (
    principal uuid NOT NULL,
    key text NOT NULL,
    fingerprint bytea NOT NULL CHECK (octet_length(fingerprint) = 32),
    outcome jsonb NOT NULL,
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    PRIMARY KEY (principal, key)
);
CREATE INDEX idempotency_keys_expiry ON idempotency_keys (expires_at);
