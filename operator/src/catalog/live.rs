//! The catalog on real servers, over `finaiflow-schema`.

use std::collections::HashMap;
use std::time::Duration;

use finaiflow_schema::names::quote;
use finaiflow_schema::{migrate, provision, system};
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::jiff::Timestamp;
use kube::{Api, Client};
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions, PgSslMode};
use sqlx::{AssertSqlSafe, PgConnection, PgPool, Postgres, Transaction};
use tokio::sync::OnceCell;

use super::{
    Catalog, Change, Claim, ClaimId, Credential, Error, Limits, LoginRecord, Migrated, NewClaim, Observed, Result,
    TenantNames, Verification,
};
use crate::config::{self, Config, SslMode};

const POOL: u32 = 8;
const ACQUIRE: Duration = Duration::from_secs(10);
const IDLE: Duration = Duration::from_mins(5);

/// Real servers.
pub struct Live {
    servers: HashMap<String, Server>,
}

struct Server {
    settings: config::Server,
    secrets: Api<Secret>,
    pool: PgPool,
    /// This process's leadership epoch, taken when the server is first used.
    epoch: OnceCell<i64>,
}

impl Live {
    /// Connects to nothing yet. Admin Secrets are read in `namespace`.
    #[must_use]
    pub fn new(config: &Config, client: &Client, namespace: &str) -> Self {
        let secrets = Api::namespaced(client.clone(), namespace);
        let server =
            |settings: &config::Server| (settings.name.clone(), Server::new(settings.clone(), secrets.clone()));
        Self { servers: config.servers().map(server).collect() }
    }

    /// Closes every connection.
    pub async fn close(&self) {
        for server in self.servers.values() {
            server.pool.close().await;
        }
    }

    fn server(&self, name: &str) -> Result<&Server> {
        let missing = || finaiflow_schema::Error::Unexpected(format!("server {name} is not configured"));
        Ok(self.servers.get(name).ok_or_else(missing)?)
    }

    async fn read(&self, server: &str) -> Result<PoolConnection<Postgres>> {
        let server = self.server(server)?;
        server.epoch().await?;
        server.acquire().await
    }

    /// A transaction that only the newest operator gets.
    async fn write(&self, server: &str) -> Result<Transaction<'static, Postgres>> {
        let server = self.server(server)?;
        let epoch = server.epoch().await?;
        let conn = server.acquire().await?;
        let mut tx = Transaction::begin(conn, None).await.map_err(finaiflow_schema::Error::from)?;
        system::check_epoch(&mut tx, epoch).await?;
        Ok(tx)
    }

    /// A transaction that only the newest operator gets, alone with the claim.
    async fn write_claim(&self, server: &str, claim: &ClaimId) -> Result<Transaction<'static, Postgres>> {
        let epoch = self.server(server)?.epoch().await?;
        let mut tx = self.write(server).await?;
        system::lock_claim(&mut tx, epoch, claim).await?;
        Ok(tx)
    }

    /// Committed by itself: until then a client whose session is ended could still open another.
    async fn close_logins(&self, server: &str, names: &TenantNames) -> Result<Vec<Change>> {
        let mut tx = self.write_claim(server, &names.claim_id).await?;
        let changes = provision::release(&mut tx, names).await?;
        commit(tx).await?;
        Ok(changes)
    }
}

impl Server {
    fn new(settings: config::Server, secrets: Api<Secret>) -> Self {
        let options = connect_options(&settings.admin_endpoint);
        let pool = PgPoolOptions::new()
            .max_connections(POOL)
            .acquire_timeout(ACQUIRE)
            .idle_timeout(IDLE)
            .connect_lazy_with(options);
        Self { settings, secrets, pool, epoch: OnceCell::new() }
    }

    async fn epoch(&self) -> Result<i64> {
        // Visits that wait for the one that is connecting must not each start over after it.
        match tokio::time::timeout(ACQUIRE, self.epoch.get_or_try_init(|| self.take_over())).await {
            Ok(epoch) => epoch.copied(),
            Err(_) => Err(finaiflow_schema::Error::Unavailable("no connection yet".to_owned()).into()),
        }
    }

    async fn take_over(&self) -> Result<i64> {
        self.read_credentials().await?;
        let mut conn = self.acquire().await?;
        for change in system::ensure(&mut conn).await? {
            tracing::info!(server = self.settings.name, %change, "prepared the database");
        }
        let epoch = system::next_epoch(&mut conn).await?;
        tracing::info!(server = self.settings.name, epoch, "took over the database");
        Ok(epoch)
    }

    /// A connection; if the login is refused, the Secret is read once more: its password may have been changed.
    async fn acquire(&self) -> Result<PoolConnection<Postgres>> {
        match self.pool.acquire().await {
            Err(sqlx::Error::Database(refused)) if matches!(refused.code().as_deref(), Some("28P01" | "28000")) => {
                self.read_credentials().await?;
                self.pool.acquire().await
            }
            result => result,
        }
        .map_err(|error| finaiflow_schema::Error::from(error).into())
    }

    async fn read_credentials(&self) -> Result<()> {
        let name = &self.settings.admin_secret_name;
        let failed = |why: String| Error::Admin { name: name.clone(), why };
        let secret = self.secrets.get(name).await.map_err(|error| failed(error.to_string()))?;
        let data = secret.data.unwrap_or_default();
        let text = |key: &str| {
            let bytes = data.get(key).ok_or_else(|| failed(format!("key {key} is missing")))?;
            String::from_utf8(bytes.0.clone()).map_err(|_| failed(format!("key {key} is not text")))
        };
        let options = connect_options(&self.settings.admin_endpoint);
        self.pool.set_connect_options(options.username(&text("username")?).password(&text("password")?));
        Ok(())
    }
}

fn connect_options(endpoint: &config::Endpoint) -> PgConnectOptions {
    let tls = match endpoint.ssl_mode {
        SslMode::Disable => PgSslMode::Disable,
        SslMode::Prefer => PgSslMode::Prefer,
        SslMode::Require => PgSslMode::Require,
        SslMode::VerifyCa => PgSslMode::VerifyCa,
        SslMode::VerifyFull => PgSslMode::VerifyFull,
    };
    PgConnectOptions::new_without_pgpass()
        .host(&endpoint.host)
        .port(endpoint.port)
        .database(&endpoint.database)
        .ssl_mode(tls)
        .application_name(finaiflow_crds::names::MANAGER_OPERATOR)
        .options([
            ("statement_timeout", "30s"),
            ("lock_timeout", "10s"),
            ("idle_in_transaction_session_timeout", "30s"),
        ])
}

async fn commit(tx: Transaction<'static, Postgres>) -> Result<()> {
    Ok(tx.commit().await.map_err(finaiflow_schema::Error::from)?)
}

async fn logins(conn: &mut PgConnection, names: &TenantNames) -> sqlx::Result<Vec<LoginRecord>> {
    let rows: Vec<(String, i32, Vec<u8>)> = sqlx::query_as(
        "SELECT role_name, generation, password_digest FROM finaiflow_system.logins WHERE claim_id = $1",
    )
    .bind(names.claim_id.to_string())
    .fetch_all(conn)
    .await?;
    let record = |(role, generation, digest)| LoginRecord { role, generation, digest };
    Ok(rows.into_iter().map(record).collect())
}

#[derive(sqlx::FromRow)]
struct VerificationRow {
    epoch: i32,
    sequence: i64,
    balanced: bool,
    findings: serde_json::Value,
    finished: i64,
}

async fn newest_verification(conn: &mut PgConnection, names: &TenantNames) -> sqlx::Result<Option<Verification>> {
    let sql = format!(
        "SELECT epoch, sequence, balanced, findings, floor(extract(epoch FROM finished_at))::bigint AS finished
         FROM {}.ledger_verifications ORDER BY id DESC LIMIT 1",
        quote(&names.schema)
    );
    let row: Option<VerificationRow> = sqlx::query_as(AssertSqlSafe(sql)).fetch_optional(conn).await?;
    Ok(row.map(|row| Verification {
        epoch: row.epoch,
        sequence: row.sequence,
        balanced: row.balanced,
        findings: row.findings,
        finished_at: Timestamp::from_second(row.finished).unwrap_or(Timestamp::UNIX_EPOCH),
    }))
}

impl Catalog for Live {
    async fn claims(&self, server: &str, installation: &str, name: &str) -> Result<Vec<Claim>> {
        let mut conn = self.read(server).await?;
        let sql = "SELECT * FROM finaiflow_system.claims WHERE installation_id = $1 AND name = $2 ORDER BY created_at";
        let found = sqlx::query_as(sql).bind(installation).bind(name).fetch_all(&mut *conn).await;
        Ok(found.map_err(finaiflow_schema::Error::from)?)
    }

    async fn count_active(&self, server: &str) -> Result<i64> {
        let mut conn = self.read(server).await?;
        Ok(system::count_active(&mut conn).await?)
    }

    async fn observe(&self, server: &str, names: &TenantNames) -> Result<Observed> {
        let mut conn = self.read(server).await?;
        let version = migrate::current(&mut conn, names).await?;
        let logins = logins(&mut conn, names).await.map_err(finaiflow_schema::Error::from)?;
        let verification = match version {
            Some(_) => newest_verification(&mut conn, names).await.map_err(finaiflow_schema::Error::from)?,
            None => None,
        };
        Ok(Observed { version, logins, verification })
    }

    async fn claim(&self, server: &str, names: &TenantNames, new: &NewClaim) -> Result<()> {
        let mut tx = self.write(server).await?;
        let new = system::NewClaim {
            claim_id: names.claim_id,
            installation_id: &new.installation,
            namespace: &new.namespace,
            name: &new.name,
            schema_name: &names.schema,
            uid: &new.uid,
        };
        system::insert_claim(&mut tx, &new).await?;
        commit(tx).await
    }

    async fn provision(&self, server: &str, names: &TenantNames, limits: Limits) -> Result<Vec<Change>> {
        let mut tx = self.write_claim(server, &names.claim_id).await?;
        let changes = provision::ensure_roles_and_schema(&mut tx, names, &limits).await?;
        commit(tx).await?;
        Ok(changes)
    }

    async fn migrate(&self, server: &str, names: &TenantNames) -> Result<Migrated> {
        let mut tx = self.write_claim(server, &names.claim_id).await?;
        let from = migrate::current(&mut tx, names).await?;
        migrate::migrate(&mut tx, names).await?;
        let grants = provision::ensure_grants(&mut tx, names).await?;
        commit(tx).await?;
        Ok(Migrated { from, to: migrate::head_version(), grants })
    }

    async fn set_logins(&self, server: &str, names: &TenantNames, credentials: &[Credential]) -> Result<Vec<Change>> {
        let mut tx = self.write_claim(server, &names.claim_id).await?;
        let mut changes = Vec::new();
        for Credential { login, password, generation } in credentials {
            changes.extend(provision::set_login_password(&mut tx, names, *login, password, *generation).await?);
        }
        commit(tx).await?;
        Ok(changes)
    }

    async fn release(&self, server: &str, names: &TenantNames) -> Result<Vec<Change>> {
        let mut changes = self.close_logins(server, names).await?;
        let mut tx = self.write_claim(server, &names.claim_id).await?;
        changes.extend(provision::release(&mut tx, names).await?);
        system::release_claim(&mut tx, &names.claim_id).await?;
        commit(tx).await?;
        Ok(changes)
    }

    async fn drop_tenant(&self, server: &str, names: &TenantNames) -> Result<Vec<Change>> {
        let mut changes = self.close_logins(server, names).await?;
        let mut tx = self.write_claim(server, &names.claim_id).await?;
        changes.extend(provision::drop_tenant(&mut tx, names).await?);
        system::mark_dropped(&mut tx, &names.claim_id).await?;
        commit(tx).await?;
        Ok(changes)
    }
}
