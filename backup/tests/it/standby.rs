//! A server that is a standby, and then the primary of another timeline.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use finaiflow_backup::manifest::Kind;
use finaiflow_backup::{rows, take};
use finaiflow_schema::testing::{TenantDb, connect};
use sqlx::PgConnection;

use crate::bank::{Bank, backed_up, taken, vault};
use crate::harness::Directory;

/// A PostgreSQL of the test's own.
struct Server {
    data: PathBuf,
    port: u16,
}

impl Server {
    fn new() -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let server = Self { data: std::env::temp_dir().join(format!("finaiflow-standby-{port}")), port };
        server.bash(
            "mkdir -m 700 \"$DATA\"; pg_own \"$DATA\"; pg initdb -D \"$DATA\" -U postgres --auth=trust --no-sync",
        );
        server.start();
        server
    }

    fn start(&self) {
        self.bash("pg_start \"$DATA\" \"$PORT\" '-c fsync=off'");
    }

    fn stop(&self) {
        self.bash("pg_stop \"$DATA\" fast");
    }

    fn bash(&self, script: &str) {
        let library = Path::new(env!("CARGO_MANIFEST_DIR")).join("../e2e/cluster/postgres.sh");
        let script = format!("set -e; . \"$LIBRARY\"; {script}");
        let done = Command::new("bash")
            .args(["-c", &script])
            .env("LIBRARY", library)
            .env("DATA", &self.data)
            .env("PORT", self.port.to_string())
            .stdout(Stdio::null())
            .status();
        assert!(done.unwrap().success(), "{script}");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.bash("pg_stop \"$DATA\" immediate; rm -rf \"$DATA\"");
    }
}

#[tokio::test]
async fn a_standby_is_refused_and_another_timeline_is_another_beginning() {
    let server = Server::new();
    let db = TenantDb::create_on(&format!("postgres://postgres@127.0.0.1:{}/postgres", server.port)).await;
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
