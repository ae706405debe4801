//! A real throw-away tenant for integration tests, provisioned as the operator does it.
//!
//! Needs a server in `FINAIFLOW_TEST_DATABASE_URL` (a superuser's URL) and panics without one.
#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::missing_panics_doc,
    reason = "test support: a failure here is the test's failure"
)]

use std::str::FromStr;

use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection, PgConnection};

use crate::catalog::{quote_any, run};
use crate::migrate;
use crate::names::{ClaimId, Identifier, Login, TenantNames, quote};
use crate::password::Password;
use crate::provision::{self, Limits};
use crate::system::{self, NewClaim};

/// Names the server to use.
pub const DATABASE_URL: &str = "FINAIFLOW_TEST_DATABASE_URL";
/// The installation that test claims are recorded under.
pub const INSTALLATION: &str = "test-installation";
/// The limits test tenants are provisioned with.
pub const LIMITS: Limits = Limits { connections: 20, statement_timeout_seconds: 30 };

/// A provisioned, migrated tenant.
#[derive(Debug, Clone)]
pub struct TestTenant {
    /// Its identity.
    pub claim_id: ClaimId,
    /// Its names.
    pub names: TenantNames,
    /// URL of the API server's login, slot a.
    pub app_url: String,
    /// URL of the ledger-verification job's login.
    pub maintenance_url: String,
    /// URL of the backup jobs' login.
    pub backup_url: String,
}

/// A fresh database with one tenant in it; more by [`TenantDb::create_second_tenant`].
#[derive(Debug)]
pub struct TenantDb {
    /// URL of the superuser, on the fresh database.
    pub superuser_url: String,
    /// URL of the `NOSUPERUSER CREATEROLE` role that owns the database and provisions.
    pub admin_url: String,
    /// The first tenant's identity.
    pub claim_id: ClaimId,
    /// The first tenant's names.
    pub names: TenantNames,
    /// URL of the first tenant's API server login, slot a.
    pub app_url: String,
    /// URL of the first tenant's ledger-verification login.
    pub maintenance_url: String,
    /// URL of the first tenant's backup login.
    pub backup_url: String,
    server: Server,
}

/// Where the fresh database is, and what was made for it.
#[derive(Debug)]
struct Server {
    superuser: PgConnectOptions,
    database: Identifier,
    admin: Identifier,
}

impl TenantDb {
    /// Makes a database, an admin role and a tenant.
    pub async fn create() -> Self {
        let url = std::env::var(DATABASE_URL).unwrap_or_else(|_| {
            panic!("{DATABASE_URL} is not set: run `make test-integration`, which starts a server")
        });
        Self::create_on(&url).await
    }

    /// The same on another server, given a superuser's URL.
    pub async fn create_on(url: &str) -> Self {
        let (server, admin_url) = Server::create(url).await;
        let mut conn = connect(&admin_url).await;
        system::ensure(&mut conn).await.expect("system schema");
        system::next_epoch(&mut conn).await.expect("epoch");
        let TestTenant { claim_id, names, app_url, maintenance_url, backup_url } =
            server.provision(&mut conn, "acme").await;
        let superuser_url = server.options().to_url_lossy().to_string();
        Self { superuser_url, admin_url, claim_id, names, app_url, maintenance_url, backup_url, server }
    }

    /// The first tenant.
    #[must_use]
    pub fn tenant(&self) -> TestTenant {
        TestTenant {
            claim_id: self.claim_id,
            names: self.names.clone(),
            app_url: self.app_url.clone(),
            maintenance_url: self.maintenance_url.clone(),
            backup_url: self.backup_url.clone(),
        }
    }

    /// Provisions a neighbour in the same database.
    pub async fn create_second_tenant(&self) -> TestTenant {
        self.create_tenant("globex").await
    }

    /// Provisions another tenant in the same database.
    pub async fn create_tenant(&self, name: &str) -> TestTenant {
        self.server.provision(&mut self.admin().await, name).await
    }

    /// Connects as the admin.
    pub async fn admin(&self) -> PgConnection {
        connect(&self.admin_url).await
    }

    /// Connects as the superuser.
    pub async fn superuser(&self) -> PgConnection {
        connect(&self.superuser_url).await
    }

    /// Drops the database and every role made for it.
    pub async fn drop(self) {
        let mut conn = self.admin().await;
        let roles: Vec<String> = sqlx::query_scalar(
            "SELECT rolname::text FROM pg_roles r JOIN finaiflow_system.claims c
             ON shobj_description(r.oid, 'pg_authid') = 'finaiflow/claim=' || c.claim_id",
        )
        .fetch_all(&mut conn)
        .await
        .expect("roles");
        conn.close().await.expect("close");
        self.server.drop(&roles).await;
    }
}

impl Server {
    async fn create(url: &str) -> (Self, String) {
        let superuser = PgConnectOptions::from_str(url).expect("a PostgreSQL URL");
        let suffix = random_claim();
        let database = Identifier::new(format!("ff_test_{suffix}")).expect("database name");
        let admin = Identifier::new(format!("ff_test_admin_{suffix}")).expect("role name");
        let password = random_password();
        let role = format!("CREATE ROLE {} NOSUPERUSER CREATEROLE LOGIN PASSWORD", quote(&admin));
        let mut conn = superuser.connect().await.expect("connect as superuser");
        execute(&mut conn, format!("{role} '{}'", password.scram_verifier())).await;
        execute(&mut conn, format!("CREATE DATABASE {} OWNER {}", quote(&database), quote(&admin))).await;
        let server = Self { superuser, database, admin };
        let admin_url = server.url(&server.admin, &password);
        (server, admin_url)
    }

    fn options(&self) -> PgConnectOptions {
        self.superuser.clone().database(self.database.as_str())
    }

    fn url(&self, role: &Identifier, password: &Password) -> String {
        self.options().username(role.as_str()).password(password.expose()).to_url_lossy().to_string()
    }

    async fn provision(&self, conn: &mut PgConnection, tenant: &str) -> TestTenant {
        let claim_id = random_claim();
        let names = TenantNames::derive(&claim_id, tenant, None).expect("names");
        let claim = NewClaim {
            claim_id,
            installation_id: INSTALLATION,
            namespace: "banks",
            name: tenant,
            schema_name: &names.schema,
            uid: "00000000-0000-0000-0000-000000000000",
        };
        system::insert_claim(conn, &claim).await.expect("claim");
        provision::ensure_roles_and_schema(conn, &names, &LIMITS).await.expect("roles and schema");
        migrate::migrate(conn, &names).await.expect("migrations");
        provision::ensure_grants(conn, &names).await.expect("grants");
        let app_url = self.log_in(conn, &names, Login::AppA).await;
        let maintenance_url = self.log_in(conn, &names, Login::Maintenance).await;
        let backup_url = self.log_in(conn, &names, Login::Backup).await;
        TestTenant { claim_id, names, app_url, maintenance_url, backup_url }
    }

    async fn log_in(&self, conn: &mut PgConnection, names: &TenantNames, login: Login) -> String {
        let password = random_password();
        provision::set_login_password(conn, names, login, &password, 1).await.expect("password");
        self.url(names.login(login), &password)
    }

    async fn drop(&self, roles: &[String]) {
        let mut conn = self.superuser.connect().await.expect("connect as superuser");
        execute(&mut conn, format!("DROP DATABASE {} WITH (FORCE)", quote(&self.database))).await;
        for role in roles {
            execute(&mut conn, format!("DROP ROLE {}", quote_any(role))).await;
        }
        execute(&mut conn, format!("DROP ROLE {}", quote(&self.admin))).await;
    }
}

/// Connects to a URL.
pub async fn connect(url: &str) -> PgConnection {
    PgConnection::connect(url).await.expect("connect")
}

/// A random password.
#[must_use]
pub fn random_password() -> Password {
    Password::from_random(random())
}

/// A random identity.
#[must_use]
pub fn random_claim() -> ClaimId {
    ClaimId::from_random(u64::from_be_bytes(random()))
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).expect("random bytes");
    bytes
}

async fn execute(conn: &mut PgConnection, sql: String) {
    run(conn, sql).await.expect("statement");
}
