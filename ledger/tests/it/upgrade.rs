//! A ledger from before there was a chain.

use finaiflow_ledger::command::Outcome;
use finaiflow_ledger::id::AccountId;
use finaiflow_schema::{migrate, provision};
use sqlx::{AssertSqlSafe, Row};

use crate::harness::{Bank, user, withdraw};

/// The schema as it was at version 3, with its functions; what has been recorded of migrations 1 to 3 stays.
const AS_IT_WAS: &str = concat!(
    "SET search_path TO {s}; SET session_replication_role TO DEFAULT;
     CREATE TEMP TABLE kept AS SELECT * FROM schema_migrations WHERE version BETWEEN 1 AND 3;
     GRANT SELECT ON kept TO {owner};
     DO $$ DECLARE r record; BEGIN
         FOR r IN SELECT oid::regprocedure AS f FROM pg_proc WHERE pronamespace = '{s}'::regnamespace LOOP
             EXECUTE 'DROP FUNCTION ' || r.f || ' CASCADE';
         END LOOP;
         FOR r IN SELECT oid::regclass AS t FROM pg_class WHERE relnamespace = '{s}'::regnamespace AND relkind = 'r' LOOP
             EXECUTE 'DROP TABLE ' || r.t || ' CASCADE';
         END LOOP;
     END $$;
     SET ROLE {owner};",
    include_str!("../../../schema/migrations/0001_identity.sql"),
    include_str!("../../../schema/migrations/0002_ledger.sql"),
    include_str!("../../../schema/migrations/0003_records.sql"),
    "INSERT INTO schema_migrations TABLE kept;
     CREATE FUNCTION lock_head(OUT epoch int, OUT sequence bigint, OUT head_time timestamptz) LANGUAGE sql
         AS 'SELECT epoch, sequence, head_time FROM ledger_head';
     CREATE FUNCTION apply_batch(int, bigint, bigint, timestamptz, jsonb) RETURNS void LANGUAGE sql AS '';",
    include_str!("../../../schema/repeatable/triggers.sql"),
    "CREATE TRIGGER immutable BEFORE UPDATE OR DELETE OR TRUNCATE ON journals
         FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();"
);

/// Journals 1 to 6 as version 3 booked them: Ada's account, the settlement account, a deposit of 1000 some days before, a
/// withdrawal of 100, Bob's account, a transfer of 50 to it.
const BOOKED: &str = "
    INSERT INTO accounts
    SELECT account.id, epoch, owner_id::uuid, kind, type, 'USD', name, 'active', minimum_balance, now() - before
    FROM ledger_head, (VALUES
        (1, '00000000-0000-0000-0000-000000000001', 'customer', 'checking', 'Für Ünïcode – ok', 0, interval '40 days'),
        (2, NULL, 'settlement', 'settlement', 'USD settlement', NULL, '40 days'),
        (5, '00000000-0000-0000-0000-000000000002', 'customer', 'savings', '', 0, '1 minute')
    ) AS account (id, owner_id, kind, type, name, minimum_balance, before);
    INSERT INTO journals
    SELECT j.sequence, epoch, kind, now() - before, '00000000-0000-0000-0000-000000000001', 'USD', amount, description,
        category, reference
    FROM ledger_head, (VALUES
        (1, 'account_opened', interval '40 days', 0, NULL, NULL, NULL),
        (2, 'account_opened', '40 days', 0, NULL, NULL, NULL),
        (3, 'deposit', '39 days 1 microsecond', 1000, 'Gehalt für Mai', 'salary', 'r-1'),
        (4, 'withdrawal', '1 minute', 100, NULL, NULL, NULL),
        (5, 'account_opened', '1 minute', 0, NULL, NULL, NULL),
        (6, 'transfer', '1 second', 50, NULL, '', NULL)
    ) AS j (sequence, kind, before, amount, description, category, reference);
    INSERT INTO entries VALUES
        (2, 1, 3, 0, -1000, 0, -1000, 0), (1, 1, 3, 1, 1000, 0, 1000, 0),
        (1, 2, 4, 0, -100, 0, 900, 0), (2, 2, 4, 1, 100, 0, -900, 0),
        (1, 3, 6, 0, -50, 0, 850, 0), (5, 1, 6, 1, 50, 0, 50, 0);
    INSERT INTO account_balances
    SELECT id, posted, 0, version, now() - before
    FROM (VALUES (1, 850, 3, interval '1 second'), (2, -900, 2, '1 minute'), (5, 50, 1, '1 second'))
        AS balance (id, posted, version, before);
    INSERT INTO idempotency_keys
    VALUES ('00000000-0000-0000-0000-000000000001', 'w', decode(repeat('07', 32), 'hex'),
        '{\"rejected\": \"insufficient_funds\"}', now(), now() + interval '1 day');
    UPDATE ledger_head SET sequence = 6, head_time = now() - interval '1 second'";

#[tokio::test]
async fn what_was_booked_before_the_chain_is_chained_and_verified() {
    let bank = Bank::found(2).await;
    let mut superuser = bank.db.superuser().await;
    let as_it_was = format!("{AS_IT_WAS}{BOOKED}")
        .replace("{s}", bank.db.names.schema.as_str())
        .replace("{owner}", bank.db.names.owner.as_str());
    sqlx::raw_sql(AssertSqlSafe(as_it_was)).execute(&mut superuser).await.unwrap();

    let mut admin = bank.db.admin().await;
    let applied = migrate::migrate(&mut admin, &bank.db.names).await.unwrap();
    assert_eq!(applied.iter().map(|migration| migration.version).collect::<Vec<_>>(), [4, 0]);
    provision::ensure_grants(&mut admin, &bank.db.names).await.unwrap();

    let report = bank.verify().await;
    assert!(report.balanced(), "{report:#?}");
    assert_eq!(report.journals, 6);
    let mut superuser = bank.superuser().await;
    let row = sqlx::query(
        "SELECT (SELECT hash FROM journals WHERE sequence = 6) AS last, hash AS head,
             (SELECT count(*) FROM journals WHERE salt IS NOT NULL) AS blinded FROM ledger_head",
    )
    .fetch_one(&mut superuser)
    .await
    .unwrap();
    let last: Vec<u8> = row.get("last");
    assert_eq!((&last, &last[..]), (&row.get::<Vec<u8>, _>("head"), &report.hash.0[..]));
    assert_eq!(row.get::<i64, _>("blinded"), 5, "names of accounts are text too");

    let epoch: i32 = sqlx::query_scalar("SELECT epoch FROM ledger_head").fetch_one(&mut superuser).await.unwrap();
    let account = AccountId { epoch: epoch.cast_unsigned(), sequence: 1.try_into().unwrap() };
    let withdrawn = bank.engine.submit(withdraw(user(1), "after", account, 10)).await.unwrap();
    assert!(matches!(&withdrawn, Outcome::Transaction(booked) if booked.balance_after == 840), "{withdrawn:?}");
    let report = bank.verify().await;
    assert!(report.balanced(), "{report:#?}");
    bank.close().await;
}
