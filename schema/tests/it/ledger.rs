//! `apply_batch` as the API server's login calls it.

use finaiflow_schema::testing::{TenantDb, connect};
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection, Row};
use time::Duration;
use uuid::Uuid;

use crate::books::{
    ALICE, BOB, Batch, CARD, EURO, HOLD, PLEDGED, SAVED, SETTLEMENT, SHUT, STOPPED, customer, deposit, entry, full,
    grounds, internal, journal, key, movements, opened, opening, referring,
};
use crate::sqlstate;

/// Id, status, minimum, limit per transaction, daily limit.
type Account = (i64, String, i64, Option<i64>, Option<i64>);

#[tokio::test]
async fn batches_move_money_and_keep_the_books() {
    let db = TenantDb::create().await;
    let mut app = connect(&db.app_url).await;
    for batch in [opening(), deposit(), movements(5)] {
        batch.apply(&mut app).await.unwrap();
    }
    let balances: Vec<(i64, i64, i64, i64)> =
        sqlx::query_as("SELECT account_id, posted, held, version FROM account_balances ORDER BY account_id")
            .fetch_all(&mut app)
            .await
            .unwrap();
    assert_eq!(balances, [(SETTLEMENT, -900, 0, 2), (ALICE, 700, 0, 2), (BOB, 200, 0, 2), (EURO, 0, 0, 0)]);
    let replayed: Vec<(i64, i64, i64)> = sqlx::query_as(
        "SELECT account_id, sum(posted_delta)::bigint, max(seq) FROM entries GROUP BY account_id ORDER BY account_id",
    )
    .fetch_all(&mut app)
    .await
    .unwrap();
    assert_eq!(replayed, [(SETTLEMENT, -900, 2), (ALICE, 700, 2), (BOB, 200, 2)]);

    // What the function decides, whatever the rows say.
    let row = sqlx::query(
        "SELECT j.booked_at, j.epoch = h.epoch AS in_epoch, j.category, a.minimum_balance, a.status, a.created_at, s.minimum_balance AS unlimited,
                k.expires_at, h.sequence, h.head_time,
                h.hash = (SELECT hash FROM journals WHERE sequence = 7) AS is_last_hash
         FROM journals j, accounts a, accounts s, idempotency_keys k, ledger_head h
         WHERE j.sequence = 5 AND a.id = 2 AND s.id = 1",
    )
    .fetch_one(&mut app)
    .await
    .unwrap();
    assert_eq!(row.get::<time::OffsetDateTime, _>("booked_at"), deposit().time);
    assert_eq!(row.get::<time::OffsetDateTime, _>("created_at"), opening().time);
    assert_eq!(row.get::<time::OffsetDateTime, _>("expires_at"), deposit().time + Duration::hours(24));
    assert_eq!(row.get::<time::OffsetDateTime, _>("head_time"), movements(5).time);
    assert_eq!((row.get::<i64, _>("sequence"), row.get::<bool, _>("in_epoch")), (7, true));
    assert!(row.get::<bool, _>("is_last_hash"));
    assert_eq!((row.get::<&str, _>("category"), row.get::<&str, _>("status")), ("salary", "active"));
    assert_eq!((row.get::<Option<i64>, _>("minimum_balance"), row.get::<Option<i64>, _>("unlimited")), (Some(0), None));
    db.drop().await;
}

#[tokio::test]
async fn an_account_can_be_opened_and_used_in_one_batch_and_rejections_need_no_journal() {
    let db = TenantDb::create().await;
    let mut app = connect(&db.app_url).await;
    let opened = Batch::new(
        0,
        3,
        json!({
            "journals": [
                opened(1, "JPY", &internal("settlement")), opened(2, "JPY", &customer()), journal(3, "deposit", "JPY", 5),
            ],
            "entries": [entry(3, 0, 5, (1, 1, -5)), entry(3, 1, 5, (2, 1, 5))],
        }),
    );
    opened.apply(&mut app).await.unwrap();
    let mut rejected = Batch::new(3, 3, json!({"idempotency": [key("refused")]}));
    rejected.time += Duration::microseconds(1);
    rejected.apply(&mut app).await.unwrap();
    let head: (i64, time::OffsetDateTime) =
        sqlx::query_as("SELECT sequence, head_time FROM lock_head()").fetch_one(&mut app).await.unwrap();
    assert_eq!(head, (3, rejected.time));
    db.drop().await;
}

#[tokio::test]
async fn holds_and_accounts_become_what_their_journals_say() {
    let db = TenantDb::create().await;
    let mut app = connect(&db.app_url).await;
    for batch in [opening(), deposit()].into_iter().chain(grounds()) {
        batch.apply(&mut app).await.unwrap();
    }
    let balances: Vec<(i64, i64, i64, i64)> = sqlx::query_as(
        "SELECT account_id, posted, held, version FROM account_balances WHERE account_id > 6 ORDER BY account_id",
    )
    .fetch_all(&mut app)
    .await
    .unwrap();
    assert_eq!(
        balances,
        [(CARD, 450, 300, 6), (SAVED, 50, 0, 3), (SHUT, 0, 0, 0), (STOPPED, 0, 0, 0), (PLEDGED, 0, 5, 1)]
    );
    let accounts: Vec<Account> = sqlx::query_as(
        "SELECT id, status, minimum_balance, per_transaction_limit, daily_limit FROM accounts WHERE id > 8 ORDER BY id",
    )
    .fetch_all(&mut app)
    .await
    .unwrap();
    let as_opened = |id, status: &str| (id, status.to_owned(), 0, None, None);
    assert_eq!(
        accounts,
        [as_opened(SHUT, "closed"), as_opened(STOPPED, "frozen"), (PLEDGED, "active".to_owned(), -5, Some(7), Some(8))]
    );
    let settle = |from: i64, kind: &str, amount: i64, entries: Value| {
        let body = json!({"journals": [referring(from + 1, kind, amount, HOLD)], "entries": entries});
        Batch::new(from, from + 1, body)
    };
    let entries = |at, taken: i64, released: i64, seq, posted, held| {
        let card = full(at, 0, (-taken, -released), (CARD, seq, posted, held));
        let saved = full(at, 1, (taken, 0), (SAVED, 4, 50 + taken, 0));
        if taken > 0 { json!([card, saved]) } else { json!([card]) }
    };
    let statuses = [
        (settle(21, "hold_captured", 30, entries(22, 30, 40, 7, 420, 260)), ("held", 160, 30)),
        (settle(22, "hold_voided", 160, entries(23, 0, 160, 8, 420, 100)), ("captured", 0, 30)),
    ];
    for (batch, expected) in statuses {
        batch.apply(&mut app).await.unwrap();
        let hold: (String, i64, i64) = sqlx::query_as("SELECT status, remaining, captured FROM holds WHERE id = $1")
            .bind(HOLD)
            .fetch_one(&mut app)
            .await
            .unwrap();
        assert_eq!((hold.0.as_str(), hold.1, hold.2), expected);
    }
    let pending: (i64, i64, String, i64) =
        sqlx::query_as("SELECT account_id, destination_id, status, remaining FROM holds WHERE id = 14")
            .fetch_one(&mut app)
            .await
            .unwrap();
    assert_eq!(pending, (CARD, SAVED, "held".to_owned(), 100));
    db.drop().await;
}

#[tokio::test]
async fn a_closed_or_frozen_account_takes_part_in_nothing() {
    let db = TenantDb::create().await;
    let mut app = connect(&db.app_url).await;
    opening().apply(&mut app).await.unwrap();
    deposit().apply(&mut app).await.unwrap();
    let mut superuser = db.superuser().await;
    for (account, status) in [(ALICE, "frozen"), (BOB, "closed")] {
        let mut tx = superuser.begin().await.unwrap();
        sqlx::query("SELECT set_config('search_path', $1, true)")
            .bind(db.names.schema.as_str())
            .execute(&mut *tx)
            .await
            .unwrap();
        sqlx::query("UPDATE accounts SET status = $2 WHERE id = $1")
            .bind(account)
            .bind(status)
            .execute(&mut *tx)
            .await
            .unwrap();
        assert_eq!(sqlstate(movements(5).apply(&mut tx).await), "FF004", "{status}");
        tx.rollback().await.unwrap();
    }
    movements(5).apply(&mut app).await.unwrap();
    db.drop().await;
}

#[tokio::test]
async fn two_writers_cannot_both_take_the_head() {
    let db = TenantDb::create().await;
    let (mut first, mut second) = (connect(&db.app_url).await, connect(&db.app_url).await);
    opening().apply(&mut first).await.unwrap();
    let mut tx = first.begin().await.unwrap();
    deposit().apply(&mut tx).await.unwrap();
    let batch = deposit();
    let (waiting, ()) = tokio::join!(batch.apply(&mut second), async {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        tx.commit().await.unwrap();
    });
    assert_eq!(sqlstate(waiting), "FF001");
    db.drop().await;
}

#[tokio::test]
async fn keys_last_a_day_and_outcomes_of_users_are_not_the_apps_to_write() {
    let db = TenantDb::create().await;
    let mut app = connect(&db.app_url).await;
    opening().apply(&mut app).await.unwrap();
    deposit().apply(&mut app).await.unwrap();
    // `deposit` is booked years ago, so its key has expired and may be used again.
    let reuse = Batch { body: json!({"idempotency": [key("deposit-5")]}), ..Batch::new(5, 5, Value::Null) };
    let reuse = Batch { time: reuse.time + Duration::hours(24), ..reuse };
    reuse.apply(&mut app).await.unwrap();
    assert_eq!(expire(&mut app).await, 1);
    assert_eq!(expire(&mut app).await, 0);

    let remember = |principal: Uuid| {
        sqlx::query("SELECT remember_outcome($1, 'k', $2, '{\"id\": 1}')").bind(principal).bind(vec![1_u8; 32])
    };
    let (stranger, user) = (Uuid::from_u128(1), Uuid::from_u128(2));
    remember(stranger).execute(&mut app).await.unwrap();
    assert_eq!(sqlstate(remember(stranger).execute(&mut app).await), "23505");
    assert_eq!(expire(&mut app).await, 0, "a live key stays");
    sqlx::query(
        "INSERT INTO users (id, email, email_normalized, name, password_hash, status, created_at, updated_at)
         VALUES ($1, 'a@b', 'a@b', 'a', 'h', 'active', now(), now())",
    )
    .bind(user)
    .execute(&mut app)
    .await
    .unwrap();
    assert_eq!(sqlstate(remember(user).execute(&mut app).await), "FF006");
    db.drop().await;
}

async fn expire(app: &mut PgConnection) -> i64 {
    sqlx::query_scalar("SELECT expire(100)").fetch_one(app).await.unwrap()
}
