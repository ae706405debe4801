//! The catalog on real servers, over `finaiflow-schema`.

use std::collections::HashMap;
use std::time::Duration;

use finaiflow_schema::{migrate, provision, system, verification};
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::jiff::Timestamp;
use kube::{Api, Client};
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions, PgSslMode};
use sqlx::{ConnectOptions, PgPool, Postgres, Transaction};
use tokio::sync::OnceCell;

use super::{
    Catalog, Change, Claim, ClaimId, ClaimState, Credential, Error, Ledger, Limits, Login, Migrated, NewClaim,
    Observed, Password, Result, TenantNames, Verification,
};
use crate::config::{self, Config, SslMode};

const POOL: u32 = 8;
const ACQUIRE: Duration = Duration::from_secs(10);
/// How long PostgreSQL may take to say why it refuses.
const REFUSAL: Duration = Duration::from_secs(2);
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

    /// A transaction and the epoch that it has yet to check.
    async fn begin(&self, server: &str) -> Result<(Transaction<'static, Postgres>, i64)> {
        let server = self.server(server)?;
        let epoch = server.epoch().await?;
        let tx = Transaction::begin(server.acquire().await?, None).await.map_err(finaiflow_schema::Error::from)?;
        Ok((tx, epoch))
    }

    /// A transaction that only the newest operator gets.
    async fn write(&self, server: &str) -> Result<Transaction<'static, Postgres>> {
        let (mut tx, epoch) = self.begin(server).await?;
        system::check_epoch(&mut tx, epoch).await?;
        Ok(tx)
    }

    /// A transaction that only the newest operator gets, alone with the claim.
    async fn write_claim(&self, server: &str, claim: &ClaimId) -> Result<Transaction<'static, Postgres>> {
        let (mut tx, epoch) = self.begin(server).await?;
        system::lock_claim(&mut tx, epoch, claim).await?;
        Ok(tx)
    }

    /// As [`Self::write_claim`], for what was decided from the claim as it was read.
    async fn write_claim_as(&self, server: &str, held: &Claim) -> Result<Transaction<'static, Postgres>> {
        let (mut tx, epoch) = self.begin(server).await?;
        system::lock_claim_as(&mut tx, epoch, held).await?;
        Ok(tx)
    }

    /// Committed by itself: until then a client whose session is ended could still open another.
    async fn close_logins(&self, server: &str, names: &TenantNames, held: &Claim) -> Result<Vec<Change>> {
        let mut tx = self.write_claim_as(server, held).await?;
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
            // The pool tries again while PostgreSQL refuses, and in the end does not say why.
            Err(sqlx::Error::PoolTimedOut) => Err(self.refusal().await),
            result => result,
        }
        .map_err(|error| finaiflow_schema::Error::from(error).into())
    }

    async fn refusal(&self) -> sqlx::Error {
        let options = self.pool.connect_options();
        match tokio::time::timeout(REFUSAL, options.connect()).await {
            Ok(Err(error)) => error,
            Ok(Ok(_)) | Err(_) => sqlx::Error::PoolTimedOut,
        }
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

fn to_record<'a>(names: &'a TenantNames, holder: &'a NewClaim) -> system::NewClaim<'a> {
    system::NewClaim {
        claim_id: names.claim_id,
        installation_id: &holder.installation,
        namespace: &holder.namespace,
        name: &holder.name,
        schema_name: &names.schema,
        uid: &holder.uid,
    }
}

fn result(found: verification::Verification) -> Verification {
    Verification {
        epoch: found.epoch,
        sequence: found.sequence,
        hash: found.hash,
        balanced: found.balanced,
        findings: found.findings,
        finished_at: Timestamp::from_second(found.finished_at).unwrap_or(Timestamp::UNIX_EPOCH),
    }
}

impl Catalog for Live {
    async fn claims(&self, server: &str, installation: &str, name: &str, also: Option<ClaimId>) -> Result<Vec<Claim>> {
        let mut conn = self.read(server).await?;
        Ok(system::claims_of(&mut conn, installation, name, also.as_ref()).await?)
    }

    async fn active_claims(&self, server: &str, installation: &str) -> Result<Vec<Claim>> {
        let mut conn = self.read(server).await?;
        Ok(system::active_claims(&mut conn, installation).await?)
    }

    async fn find_claim(&self, server: &str, claim: &ClaimId) -> Result<Option<Claim>> {
        let mut conn = self.read(server).await?;
        Ok(system::get_claim(&mut conn, claim).await?)
    }

    async fn count_active(&self, server: &str) -> Result<i64> {
        let mut conn = self.read(server).await?;
        Ok(system::count_active(&mut conn).await?)
    }

    async fn observe(&self, server: &str, names: &TenantNames, anchor: Option<i64>) -> Result<Observed> {
        let mut conn = self.read(server).await?;
        let version = migrate::current(&mut conn, names).await?;
        let logins = provision::recorded_logins(&mut conn, names).await?;
        let mut ledger = Ledger::default();
        if version.is_some() {
            ledger.verification = verification::newest(&mut conn, names).await?.map(result);
            if let Some(sequence) = anchor {
                ledger.at_anchor = verification::place(&mut conn, names, sequence).await?;
            }
        }
        Ok(Observed { version, logins, ledger })
    }

    async fn claim(&self, server: &str, names: &TenantNames, new: &NewClaim) -> Result<()> {
        let mut tx = self.write(server).await?;
        system::insert_claim(&mut tx, &to_record(names, new)).await?;
        commit(tx).await
    }

    async fn adopt(&self, server: &str, names: &TenantNames, held: &Claim, by: &NewClaim) -> Result<()> {
        if held.state == ClaimState::Active {
            // Its holder is gone or its operator fenced, but what it served must end before another serves it.
            self.release(server, names, held).await?;
        }
        let released = Claim { state: ClaimState::Released, ..held.clone() };
        let mut tx = self.write_claim_as(server, &released).await?;
        system::adopt_claim(&mut tx, &to_record(names, by)).await?;
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

    async fn release(&self, server: &str, names: &TenantNames, held: &Claim) -> Result<Vec<Change>> {
        let mut changes = self.close_logins(server, names, held).await?;
        let mut tx = self.write_claim_as(server, held).await?;
        changes.extend(provision::release(&mut tx, names).await?);
        system::release_claim(&mut tx, &names.claim_id).await?;
        commit(tx).await?;
        Ok(changes)
    }

    async fn drop_tenant(&self, server: &str, names: &TenantNames, held: &Claim) -> Result<Vec<Change>> {
        let mut changes = self.close_logins(server, names, held).await?;
        let mut tx = self.write_claim_as(server, held).await?;
        changes.extend(provision::drop_tenant(&mut tx, names).await?);
        system::mark_dropped(&mut tx, &names.claim_id).await?;
        commit(tx).await?;
        Ok(changes)
    }

    async fn pause(&self, server: &str, names: &TenantNames) -> Result<Vec<Change>> {
        let mut changes = Vec::new();
        // Committed by itself first: until then a client whose session is ended could still open another.
        for _ in 0..2 {
            let mut tx = self.write_claim(server, &names.claim_id).await?;
            let logins = [Login::AppA, Login::AppB, Login::Maintenance];
            changes.extend(provision::close_logins(&mut tx, names, &logins).await?);
            commit(tx).await?;
        }
        Ok(changes)
    }

    async fn set_aside(&self, server: &str, names: &TenantNames, limits: Limits, number: u32) -> Result<Vec<Change>> {
        let mut changes = self.pause(server, names).await?;
        let mut tx = self.write_claim(server, &names.claim_id).await?;
        changes.extend(provision::set_aside(&mut tx, names, number).await?);
        changes.extend(provision::ensure_roles_and_schema(&mut tx, names, &limits).await?);
        migrate::migrate(&mut tx, names).await?;
        changes.extend(provision::ensure_grants(&mut tx, names).await?);
        commit(tx).await?;
        Ok(changes)
    }

    async fn put_back(&self, server: &str, names: &TenantNames, number: u32) -> Result<Vec<Change>> {
        let mut tx = self.write_claim(server, &names.claim_id).await?;
        let mut changes = Vec::new();
        if provision::is_set_aside(&mut tx, names, number).await? {
            let instead = number.wrapping_add(1);
            changes.extend(provision::set_aside(&mut tx, names, instead).await?);
            changes.extend(provision::put_back(&mut tx, names, number).await?);
            changes.extend(provision::drop_aside(&mut tx, names, instead).await?);
        }
        commit(tx).await?;
        Ok(changes)
    }

    async fn open_restore(&self, server: &str, names: &TenantNames, password: &Password) -> Result<String> {
        let mut tx = self.write_claim(server, &names.claim_id).await?;
        provision::open_restore(&mut tx, names, password).await?;
        commit(tx).await?;
        Ok(names.restore.to_string())
    }

    async fn close_restore(&self, server: &str, names: &TenantNames) -> Result<Vec<Change>> {
        let mut tx = self.write_claim(server, &names.claim_id).await?;
        let changes = provision::close_restore(&mut tx, names).await?;
        commit(tx).await?;
        Ok(changes)
    }

    async fn drop_orphan_roles(&self, server: &str) -> Result<Vec<Change>> {
        let mut tx = self.write(server).await?;
        let changes = provision::drop_orphan_roles(&mut tx).await?;
        commit(tx).await?;
        Ok(changes)
    }
}
