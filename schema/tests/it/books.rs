//! Batches for `apply_batch`, built as the engine builds them, and what an attacker would change in them.

use serde_json::{Value, json};
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

/// A call of `apply_batch`.
#[derive(Debug, Clone)]
pub struct Batch {
    /// How far the epoch is from the head's.
    pub epoch: i32,
    pub from: i64,
    pub to: i64,
    pub time: OffsetDateTime,
    pub body: Value,
}

pub const OWNER: Uuid = Uuid::from_u128(7);
pub const SETTLEMENT: i64 = 1;
pub const ALICE: i64 = 2;
pub const BOB: i64 = 3;
pub const EURO: i64 = 4;

pub fn journal(sequence: i64, kind: &str, currency: &str, amount: i64) -> Value {
    json!({"sequence": sequence, "kind": kind, "actor": OWNER, "currency": currency, "amount": amount,
           "description": null, "category": "salary", "reference": null})
}

pub fn customer(id: i64, currency: &str) -> Value {
    json!({"id": id, "owner_id": OWNER, "kind": "customer", "type": "checking", "currency": currency, "name": "main"})
}

pub fn settlement(id: i64, currency: &str) -> Value {
    json!({"id": id, "owner_id": null, "kind": "settlement", "type": "settlement", "currency": currency, "name": currency})
}

/// `(account, seq, posted_after)` of a leg; the delta follows from the leg and the amount.
pub fn entry(sequence: i64, leg: i64, amount: i64, (account, seq, after): (i64, i64, i64)) -> Value {
    let delta = if leg == 0 { -amount } else { amount };
    json!({"account_id": account, "seq": seq, "sequence": sequence, "leg": leg, "posted_delta": delta,
           "held_delta": 0, "posted_after": after, "held_after": 0})
}

pub fn key(key: &str) -> Value {
    json!({"principal": OWNER, "key": key, "fingerprint": format!("\\x{}", "ab".repeat(32)), "outcome": {"ok": true}})
}

impl Batch {
    pub fn new(from: i64, to: i64, body: Value) -> Self {
        let time = OffsetDateTime::from_unix_timestamp(1_700_000_000 + to).unwrap();
        Self { epoch: 0, from, to, time, body }
    }

    pub async fn apply(&self, app: &mut PgConnection) -> Result<(), sqlx::Error> {
        sqlx::query("SELECT apply_batch($1 + (SELECT epoch FROM ledger_head), $2, $3, $4, $5)")
            .bind(self.epoch)
            .bind(self.from)
            .bind(self.to)
            .bind(self.time)
            .bind(&self.body)
            .execute(app)
            .await
            .map(drop)
    }
}

/// Journals 1 to 4: the settlement account and Alice's and Bob's in USD, one in EUR.
pub fn opening() -> Batch {
    let opened = |sequence, currency| journal(sequence, "account_opened", currency, 0);
    Batch::new(
        0,
        4,
        json!({
            "journals": [opened(1, "USD"), opened(2, "USD"), opened(3, "USD"), opened(4, "EUR")],
            "accounts": [settlement(SETTLEMENT, "USD"), customer(ALICE, "USD"), customer(BOB, "USD"), customer(EURO, "EUR")],
        }),
    )
}

/// Journal 5: 1,000 to Alice.
pub fn deposit() -> Batch {
    Batch::new(
        4,
        5,
        json!({
            "journals": [journal(5, "deposit", "USD", 1000)],
            "entries": [entry(5, 0, 1000, (SETTLEMENT, 1, -1000)), entry(5, 1, 1000, (ALICE, 1, 1000))],
            "idempotency": [key("deposit-5")],
        }),
    )
}

/// Journals 6 and 7: 300 from Alice to Bob, 100 withdrawn by Bob.
pub fn movements() -> Batch {
    Batch::new(
        5,
        7,
        json!({
            "journals": [journal(6, "transfer", "USD", 300), journal(7, "withdrawal", "USD", 100)],
            "entries": [
                entry(6, 0, 300, (ALICE, 2, 700)),
                entry(6, 1, 300, (BOB, 1, 300)),
                entry(7, 0, 100, (BOB, 2, 200)),
                entry(7, 1, 100, (SETTLEMENT, 2, -900)),
            ],
        }),
    )
}

/// Everything the ledger holds, to compare before and after.
pub async fn contents(conn: &mut PgConnection) -> Value {
    sqlx::query_scalar(
        "SELECT jsonb_build_object(
             'head', (SELECT jsonb_agg(t) FROM ledger_head t),
             'accounts', (SELECT jsonb_agg(t ORDER BY id) FROM accounts t),
             'balances', (SELECT jsonb_agg(t ORDER BY account_id) FROM account_balances t),
             'journals', (SELECT jsonb_agg(t ORDER BY sequence) FROM journals t),
             'entries', (SELECT jsonb_agg(t ORDER BY account_id, seq) FROM entries t),
             'keys', (SELECT jsonb_agg(t ORDER BY principal, key) FROM idempotency_keys t))",
    )
    .fetch_one(conn)
    .await
    .unwrap()
}
