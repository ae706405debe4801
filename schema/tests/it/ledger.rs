//! `apply_batch` as the API server's login calls it.

use finaiflow_schema::testing::{TenantDb, connect};
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection, Row};
use time::Duration;
use uuid::Uuid;

use crate::books::{
    ALICE, BOB, Batch, EURO, SETTLEMENT, customer, deposit, entry, journal, key, movements, opening, settlement,
};
use crate::sqlstate;

#[tokio::test]
async fn batches_move_money_and_keep_the_books() {
    let db = TenantDb::create().await;
    let mut app = connect(&db.app_url).await;
    for batch in [opening(), deposit(), movements()] {
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
                k.expires_at, h.sequence, h.head_time
         FROM journals j, accounts a, accounts s, idempotency_keys k, ledger_head h
         WHERE j.sequence = 5 AND a.id = 2 AND s.id = 1",
    )
    .fetch_one(&mut app)
    .await
    .unwrap();
    assert_eq!(row.get::<time::OffsetDateTime, _>("booked_at"), deposit().time);
    assert_eq!(row.get::<time::OffsetDateTime, _>("created_at"), opening().time);
    assert_eq!(row.get::<time::OffsetDateTime, _>("expires_at"), deposit().time + Duration::hours(24));
    assert_eq!(row.get::<time::OffsetDateTime, _>("head_time"), movements().time);
    assert_eq!((row.get::<i64, _>("sequence"), row.get::<bool, _>("in_epoch")), (7, true));
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
            "journals": [journal(1, "account_opened", "JPY", 0), journal(2, "account_opened", "JPY", 0), journal(3, "deposit", "JPY", 5)],
            "accounts": [settlement(1, "JPY"), customer(2, "JPY")],
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
        assert_eq!(sqlstate(movements().apply(&mut tx).await), "FF004", "{status}");
        tx.rollback().await.unwrap();
    }
    movements().apply(&mut app).await.unwrap();
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
