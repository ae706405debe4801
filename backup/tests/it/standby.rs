//! A server that is a standby, and then the primary of another timeline.

use finaiflow_backup::manifest::Kind;
use finaiflow_backup::{rows, take};
use finaiflow_schema::testing::{TenantDb, connect};
use sqlx::PgConnection;

use crate::bank::{Bank, backed_up, taken, vault};
use crate::harness::Directory;
use crate::postgres::{Major, Server};

#[tokio::test]
async fn a_standby_is_refused_and_another_timeline_is_another_beginning() {
    let server = Server::new(Major::Fifteen);
    let db = TenantDb::create_on(&server.url()).await;
    let bank = Bank::on(db, Vec::new());
    let directory = Directory::new("standby");
    let vault = vault(&directory, &bank);
    let full = backed_up(&bank, &vault).await;
    taken(&bank, &vault, Kind::Incremental, Some(&full)).await.unwrap();

    server.stop();
    server.bash("touch \"$DATA/standby.signal\"; pg_own \"$DATA/standby.signal\"");
    server.start();
    for (kind, parent) in [(Kind::Full, None), (Kind::Incremental, Some(&full))] {
        let refused = taken(&bank, &vault, kind, parent).await;
        assert!(matches!(refused, Err(take::Error::Rows(rows::Error::Standby))), "{refused:?}");
    }

    let mut superuser: PgConnection = connect(&bank.db.superuser_url).await;
    let promoted: bool = sqlx::query_scalar("SELECT pg_promote()").fetch_one(&mut superuser).await.unwrap();
    assert!(promoted);
    let refused = taken(&bank, &vault, Kind::Incremental, Some(&full)).await;
    assert!(matches!(refused, Err(take::Error::NoParent { reason, .. }) if reason.contains("timeline")));
    let full = backed_up(&bank, &vault).await;
    assert_eq!(full.manifest().postgres.timeline, 2);

    let migrated = format!("UPDATE {}.schema_migrations SET checksum = 'x' WHERE version = 1", bank.db.names.schema);
    sqlx::query(sqlx::AssertSqlSafe(migrated)).execute(&mut superuser).await.unwrap();
    let refused = taken(&bank, &vault, Kind::Incremental, Some(&full)).await;
    assert!(matches!(refused, Err(take::Error::NoParent { reason, .. }) if reason.contains("migrated")));
}
