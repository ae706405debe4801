-- Holds, limits, account changes, reversals and journals of many legs; and the chain: every journal carries a hash over
-- itself and the one before it (ledger/src/chain.rs describes the bytes).

DROP FUNCTION IF EXISTS apply_batch(int, bigint, bigint, timestamptz, jsonb);
DROP FUNCTION IF EXISTS lock_head();

ALTER TABLE accounts
    DROP CONSTRAINT accounts_type_check,
    DROP CONSTRAINT accounts_check,
    ADD COLUMN per_transaction_limit bigint CHECK (per_transaction_limit >= 0), -- null: no limit
    ADD COLUMN daily_limit bigint CHECK (daily_limit >= 0),
    ADD COLUMN monthly_limit bigint CHECK (monthly_limit >= 0),
    ADD COLUMN metadata jsonb,
    ADD CHECK (type IN ('checking', 'savings', 'business', 'investment', 'settlement', 'fee', 'position')),
    ADD CHECK (CASE kind
        WHEN 'customer' THEN owner_id IS NOT NULL AND minimum_balance IS NOT NULL
            AND type IN ('checking', 'savings', 'business', 'investment')
        ELSE owner_id IS NULL AND minimum_balance IS NULL AND type = kind
            AND kind IN ('settlement', 'fee', 'position')
    END);

-- What left the account on the UTC day, and in the month, of its last movement; counted for the limits.
ALTER TABLE account_balances
    ADD COLUMN spent_day bigint NOT NULL DEFAULT 0,
    ADD COLUMN spent_month bigint NOT NULL DEFAULT 0;

UPDATE account_balances b
SET (spent_day, spent_month) = (
    SELECT coalesce(sum(-e.posted_delta) FILTER (WHERE (j.booked_at AT TIME ZONE 'UTC')::date
               = (b.updated_at AT TIME ZONE 'UTC')::date), 0), coalesce(sum(-e.posted_delta), 0)
    FROM entries e JOIN journals j ON j.sequence = e.sequence
    WHERE e.account_id = b.account_id AND e.leg = 0 AND j.kind IN ('withdrawal', 'transfer')
      AND j.booked_at >= date_trunc('month', b.updated_at AT TIME ZONE 'UTC') AT TIME ZONE 'UTC');

ALTER TABLE journals
    DROP CONSTRAINT journals_kind_check,
    ADD CHECK (kind IN ('account_opened', 'account_changed', 'deposit', 'withdrawal', 'transfer', 'journal', 'reversal',
        'hold_placed', 'hold_captured', 'hold_voided', 'hold_expired', 'ledger_forked')),
    ADD COLUMN refers_to bigint, -- the journal reversed, or the hold's
    ADD COLUMN value_date date, -- null: the UTC day it was booked
    ADD COLUMN metadata jsonb,
    ADD COLUMN detail json, -- what no entry tells; json keeps the very text that was hashed
    ADD COLUMN salt bytea CHECK (octet_length(salt) = 16), -- blinds the commitment to the free text
    ADD COLUMN commitment bytea CHECK (octet_length(commitment) = 32), -- instead of a free text that was erased
    ADD COLUMN hash bytea CHECK (octet_length(hash) = 32),
    ADD COLUMN ip inet, -- where the request came from
    ADD COLUMN request_id text;
CREATE UNIQUE INDEX journals_reversal ON journals (refers_to) WHERE kind = 'reversal';
CREATE INDEX journals_capture ON journals (refers_to) WHERE kind = 'hold_captured';

ALTER TABLE entries
    DROP CONSTRAINT entries_leg_check,
    ADD CHECK (leg BETWEEN 0 AND 61);

-- Money set aside. A row follows from its journals and their entries.
CREATE TABLE holds (
    id bigint PRIMARY KEY, -- the sequence of the journal that placed it
    epoch int NOT NULL,
    account_id bigint NOT NULL,
    destination_id bigint, -- a pending transfer's
    amount bigint NOT NULL CHECK (amount > 0),
    remaining bigint NOT NULL CHECK (remaining >= 0),
    captured bigint NOT NULL CHECK (captured >= 0),
    status text NOT NULL CHECK (status IN ('held', 'captured', 'voided', 'expired')),
    expires_at timestamptz,
    created_at timestamptz NOT NULL,
    CHECK ((status = 'held') = (remaining > 0))
);
CREATE INDEX holds_account ON holds (account_id, id);
CREATE INDEX holds_expiry ON holds (expires_at) WHERE status = 'held';

-- A booked transfer's answer can be told from its journal; anything else is kept as it was.
ALTER TABLE idempotency_keys
    ALTER COLUMN outcome DROP NOT NULL,
    ALTER COLUMN outcome TYPE json USING outcome::text::json,
    ADD COLUMN sequence bigint,
    ADD CHECK ((outcome IS NULL) <> (sequence IS NULL));
-- Keys come and go in the order of time, which is what a block range knows; a tree would cost each transfer an entry.
DROP INDEX idempotency_keys_expiry;
CREATE INDEX idempotency_keys_expiry ON idempotency_keys USING brin (expires_at) WITH (pages_per_range = 16, autosummarize);

ALTER TABLE ledger_head ADD COLUMN hash bytea NOT NULL DEFAULT decode(repeat('00', 32), 'hex') CHECK (octet_length(hash) = 32);
ALTER TABLE ledger_verifications ADD COLUMN hash bytea;

-- Chains what was booked before there was a chain.
ALTER TABLE journals DISABLE TRIGGER USER;
UPDATE journals j
SET detail = json_build_object('kind', a.kind, 'owner', a.owner_id, 'type', a.type), description = a.name
FROM accounts a WHERE a.id = j.sequence AND j.kind = 'account_opened';
UPDATE journals SET salt = uuid_send(gen_random_uuid())
WHERE coalesce(description, category, reference) IS NOT NULL;
DO $$
DECLARE
    v_hash bytea := decode(repeat('00', 32), 'hex');
    v_none bytea := v_hash;
    v_journal record;
BEGIN
    FOR v_journal IN
        SELECT j.sequence, '\x01'::bytea || int4send(j.epoch) || int8send(j.sequence)
                || int8send((extract(epoch FROM j.booked_at) * 1000000)::bigint)
                || int4send(octet_length(j.kind)) || convert_to(j.kind, 'UTF8') || uuid_send(j.actor)
                || int4send(octet_length(j.currency)) || convert_to(j.currency, 'UTF8') || int8send(j.amount)
                || int8send(0) || int4send((j.booked_at AT TIME ZONE 'UTC')::date - date '1970-01-01')
                || int4send(coalesce(octet_length(j.detail::text), 0)) || coalesce(convert_to(j.detail::text, 'UTF8'), '')
                || CASE WHEN j.salt IS NULL THEN v_none ELSE sha256(j.salt
                    || coalesce('\x01'::bytea || int4send(octet_length(j.description)) || convert_to(j.description, 'UTF8'), '\x00')
                    || coalesce('\x01'::bytea || int4send(octet_length(j.category)) || convert_to(j.category, 'UTF8'), '\x00')
                    || coalesce('\x01'::bytea || int4send(octet_length(j.reference)) || convert_to(j.reference, 'UTF8'), '\x00')
                    || '\x00'::bytea) END
                || int4send(e.entries::int) || coalesce(e.body, '') AS body
        FROM journals j CROSS JOIN LATERAL (
            SELECT count(*) AS entries, string_agg(int8send(account_id) || int8send(seq) || int2send(leg)
                || int8send(posted_delta) || int8send(held_delta) || int8send(posted_after) || int8send(held_after), ''::bytea
                ORDER BY leg) AS body
            FROM entries WHERE sequence = j.sequence) e
        ORDER BY j.sequence
    LOOP
        v_hash := sha256(v_hash || v_journal.body);
        UPDATE journals SET hash = v_hash WHERE sequence = v_journal.sequence;
    END LOOP;
    UPDATE ledger_head SET hash = v_hash;
END
$$;
ALTER TABLE journals ENABLE TRIGGER USER;
ALTER TABLE journals ALTER COLUMN hash SET NOT NULL;
