//! Batches for `apply_batch`, built as the engine builds them, and what an attacker would change in them.

use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, PgConnection};
use time::OffsetDateTime;
use uuid::Uuid;

/// A call of `apply_batch`, its arrays as the rows of `body`.
#[derive(Debug, Clone)]
pub struct Batch {
    /// How far the epoch is from the head's.
    pub epoch: i32,
    pub from: i64,
    pub time: OffsetDateTime,
    pub body: Value,
}

pub const OWNER: Uuid = Uuid::from_u128(7);
pub const SETTLEMENT: i64 = 1;
pub const ALICE: i64 = 2;
pub const BOB: i64 = 3;
pub const EURO: i64 = 4;

// In GBP, beside the ones above; see `grounds`.
pub const POUNDS: i64 = 6;
pub const CARD: i64 = 7;
pub const SAVED: i64 = 8;
pub const SHUT: i64 = 9;
pub const STOPPED: i64 = 10;
pub const PLEDGED: i64 = 11;
/// A hold of 200 on CARD.
pub const HOLD: i64 = 13;
/// A transfer of 50 from CARD to SAVED.
pub const PAID: i64 = 15;
/// A transfer that was reversed, and its reversal.
pub const UNDONE: i64 = 16;
pub const REVERSAL: i64 = 17;

type Table = (&'static str, &'static [(&'static str, &'static str)]);

/// The arrays of `apply_batch`: which rows of the body they come from, and the columns of those with their types.
const ARRAYS: &[Table] = &[
    (
        "journals",
        &[
            ("kind", "text"),
            ("actor", "uuid"),
            ("currency", "text"),
            ("amount", "bigint"),
            ("refers_to", "bigint"),
            ("value_date", "date"),
            ("description", "text"),
            ("category", "text"),
            ("reference", "text"),
            ("metadata", "text"),
            ("detail", "text"),
            ("salt", "bytea"),
            ("hash", "bytea"),
            ("ip", "text"),
            ("request_id", "text"),
        ],
    ),
    (
        "entries",
        &[
            ("sequence", "bigint"),
            ("leg", "smallint"),
            ("account_id", "bigint"),
            ("seq", "bigint"),
            ("posted_delta", "bigint"),
            ("held_delta", "bigint"),
            ("posted_after", "bigint"),
            ("held_after", "bigint"),
            ("spent_day", "bigint"),
            ("spent_month", "bigint"),
        ],
    ),
    (
        "idempotency",
        &[
            ("principal", "uuid"),
            ("key", "text"),
            ("fingerprint", "bytea"),
            ("sequence", "bigint"),
            ("outcome", "text"),
        ],
    ),
    (
        "audit",
        &[
            ("actor", "uuid"),
            ("event", "text"),
            ("outcome", "text"),
            ("subject", "text"),
            ("ip", "text"),
            ("request_id", "text"),
            ("detail", "text"),
        ],
    ),
];

/// A journal; `sequence` only gives it a hash of its own.
pub fn journal(sequence: i64, kind: &str, currency: &str, amount: i64) -> Value {
    json!({"kind": kind, "actor": OWNER, "currency": currency, "amount": amount, "category": "salary",
           "hash": format!("\\x{sequence:064x}")})
}

/// An opening, by what its detail says.
pub fn opened(sequence: i64, currency: &str, detail: &Value) -> Value {
    let mut journal = with(journal(sequence, "account_opened", currency, 0), "detail", detail.clone());
    journal["description"] = "main".into();
    journal
}

pub fn customer() -> Value {
    json!({"kind": "customer", "owner": OWNER, "type": "checking"})
}

pub fn internal(kind: &str) -> Value {
    json!({"kind": kind, "owner": null, "type": kind})
}

/// A change of an account, by what its detail says of it.
pub fn changed(sequence: i64, currency: &str, detail: &Value) -> Value {
    with(journal(sequence, "account_changed", currency, 0), "detail", detail.clone())
}

/// A journal that refers to another.
pub fn referring(sequence: i64, kind: &str, amount: i64, to: i64) -> Value {
    with(journal(sequence, kind, "GBP", amount), "refers_to", to)
}

pub fn with(mut row: Value, column: &str, value: impl Into<Value>) -> Value {
    row[column] = value.into();
    row
}

/// `(account, seq, posted_after)` of a leg; the delta follows from the leg and the amount.
pub fn entry(sequence: i64, leg: i64, amount: i64, after: (i64, i64, i64)) -> Value {
    let (account, seq, posted) = after;
    full(sequence, leg, (if leg == 0 { -amount } else { amount }, 0), (account, seq, posted, 0))
}

/// `(posted, held)` of the change, `(account, seq, posted, held)` after it.
pub fn full(
    sequence: i64,
    leg: i64,
    (posted_delta, held_delta): (i64, i64),
    (account, seq, posted, held): (i64, i64, i64, i64),
) -> Value {
    json!({"account_id": account, "seq": seq, "sequence": sequence, "leg": leg, "posted_delta": posted_delta,
           "held_delta": held_delta, "posted_after": posted, "held_after": held, "spent_day": 0, "spent_month": 0})
}

pub fn key(key: &str) -> Value {
    json!({"principal": OWNER, "key": key, "fingerprint": format!("\\x{}", "ab".repeat(32)), "outcome": {"ok": true}})
}

impl Batch {
    /// Journals from+1 to `to`, at a time of their own.
    pub fn new(from: i64, to: i64, body: Value) -> Self {
        let time = OffsetDateTime::from_unix_timestamp(1_700_000_000 + to).unwrap();
        Self { epoch: 0, from, time, body }
    }

    pub async fn apply(&self, app: &mut PgConnection) -> Result<(), sqlx::Error> {
        let array = |table: &str, column: &str, kind: &str| {
            format!(
                "ARRAY(SELECT (r ->> '{column}')::{kind}
                 FROM jsonb_array_elements($4::jsonb -> '{table}') WITH ORDINALITY AS t (r, nth) ORDER BY nth)"
            )
        };
        let of_table = |(table, columns): &Table| {
            columns.iter().map(|(column, kind)| array(table, column, kind)).collect::<Vec<_>>().join(", ")
        };
        let arrays = ARRAYS.iter().map(of_table).collect::<Vec<_>>().join(", ");
        let sql = format!("SELECT apply_batch($1 + (SELECT epoch FROM ledger_head), $2, $3, {arrays})");
        sqlx::query(AssertSqlSafe(sql))
            .bind(self.epoch)
            .bind(self.from)
            .bind(self.time)
            .bind(&self.body)
            .execute(app)
            .await
            .map(drop)
    }
}

/// Journals 1 to 4: the settlement account and Alice's and Bob's in USD, one in EUR.
pub fn opening() -> Batch {
    let journals = [
        opened(SETTLEMENT, "USD", &internal("settlement")),
        opened(ALICE, "USD", &customer()),
        opened(BOB, "USD", &customer()),
        opened(EURO, "EUR", &customer()),
    ];
    Batch::new(0, 4, json!({ "journals": journals }))
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

/// The two journals after `from`: 300 from Alice to Bob, 100 withdrawn by Bob.
pub fn movements(from: i64) -> Batch {
    let (first, second) = (from + 1, from + 2);
    Batch::new(
        from,
        second,
        json!({
            "journals": [journal(first, "transfer", "USD", 300), journal(second, "withdrawal", "USD", 100)],
            "entries": [
                entry(first, 0, 300, (ALICE, 2, 700)),
                entry(first, 1, 300, (BOB, 1, 300)),
                entry(second, 0, 100, (BOB, 2, 200)),
                entry(second, 1, 100, (SETTLEMENT, 2, -900)),
            ],
        }),
    )
}

/// The last journal of `grounds`.
pub const GROUNDS: i64 = 21;

/// Journals 6 to 21, one of each kind but a bulk's: accounts in GBP. CARD has 450 with 300 held, SAVED has 50, PLEDGED
/// has nothing with 5 held, STOPPED is frozen and SHUT is closed.
pub fn grounds() -> Vec<Batch> {
    let accounts = [SAVED, SHUT, STOPPED, PLEDGED];
    let mut openings = vec![opened(POUNDS, "GBP", &internal("settlement")), opened(CARD, "GBP", &customer())];
    openings.extend(accounts.map(|id| opened(id, "GBP", &customer())));
    let pending = with(journal(14, "hold_placed", "GBP", 100), "detail", json!({ "destination": SAVED }));
    let moves = json!({
        "journals": [
            journal(12, "deposit", "GBP", 500), journal(HOLD, "hold_placed", "GBP", 200), pending,
            journal(PAID, "transfer", "GBP", 50), journal(UNDONE, "transfer", "GBP", 10),
            referring(REVERSAL, "reversal", 10, UNDONE),
        ],
        "entries": [
            entry(12, 0, 500, (POUNDS, 1, -500)), entry(12, 1, 500, (CARD, 1, 500)),
            full(HOLD, 0, (0, 200), (CARD, 2, 500, 200)),
            full(14, 0, (0, 100), (CARD, 3, 500, 300)),
            full(PAID, 0, (-50, 0), (CARD, 4, 450, 300)), entry(PAID, 1, 50, (SAVED, 1, 50)),
            full(UNDONE, 0, (-10, 0), (CARD, 5, 440, 300)), entry(UNDONE, 1, 10, (SAVED, 2, 60)),
            full(REVERSAL, 0, (10, 0), (CARD, 6, 450, 300)), full(REVERSAL, 1, (-10, 0), (SAVED, 3, 50, 0)),
        ],
    });
    let pledge = json!({
        "journals": [journal(19, "hold_placed", "GBP", 5)],
        "entries": [full(19, 0, (0, 5), (PLEDGED, 1, 0, 5))],
    });
    let change = |at, detail: &Value| Batch::new(at - 1, at, json!({ "journals": [changed(at, "GBP", detail)] }));
    vec![
        Batch::new(5, 11, json!({ "journals": openings })),
        Batch::new(11, 17, moves),
        change(18, &json!({"account": PLEDGED, "limits": {"minimum_balance": -5, "per_transaction": 7, "daily": 8}})),
        Batch::new(18, 19, pledge),
        change(20, &json!({"account": STOPPED, "status": "frozen"})),
        change(21, &json!({"account": SHUT, "status": "closed"})),
    ]
}

/// Everything the ledger holds, to compare before and after.
pub async fn contents(conn: &mut PgConnection) -> Value {
    sqlx::query_scalar(
        "SELECT jsonb_build_object(
             'head', (SELECT jsonb_agg(t) FROM ledger_head t),
             'accounts', (SELECT jsonb_agg(t ORDER BY id) FROM accounts t),
             'balances', (SELECT jsonb_agg(t ORDER BY account_id) FROM account_balances t),
             'holds', (SELECT jsonb_agg(t ORDER BY id) FROM holds t),
             'journals', (SELECT jsonb_agg(t ORDER BY sequence) FROM journals t),
             'entries', (SELECT jsonb_agg(t ORDER BY account_id, seq) FROM entries t),
             'keys', (SELECT jsonb_agg(t ORDER BY principal, key) FROM idempotency_keys t))",
    )
    .fetch_one(conn)
    .await
    .unwrap()
}
