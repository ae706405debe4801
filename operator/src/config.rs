//! The platform team's choices: a YAML file, read once at start.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::backup::settings::Settings;

/// Everything the operator is told.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Config {
    /// What a Tenant may ask for with `spec.databaseClassName`.
    pub database_classes: Vec<DatabaseClass>,
    /// The API server that serves the tenants.
    pub api_server: ApiServer,
    /// How ledgers are verified.
    pub ledger_verification: LedgerVerification,
    /// Namespaces in which the operator may work.
    #[serde(default)]
    pub tenant_namespaces: Vec<String>,
    /// Which hosts the Tenants of a namespace may claim.
    #[serde(default)]
    pub host_suffixes: Vec<HostSuffixes>,
    /// How banks are backed up; absent: not at all.
    #[serde(default)]
    pub backups: Option<Settings>,
}

/// A name for one or more PostgreSQL servers; a new tenant goes to the least loaded one.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DatabaseClass {
    /// The name that Tenants use.
    pub name: String,
    /// Its servers.
    pub servers: Vec<Server>,
}

/// One database on one PostgreSQL server.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Server {
    /// Its name, unique over all classes; shown in `status.database.instance`.
    pub name: String,
    /// How many tenants it takes.
    pub capacity: i64,
    /// Where the operator connects: the server itself, not a pooler.
    pub admin_endpoint: Endpoint,
    /// Where tenants connect; may be a pooler.
    pub tenant_endpoint: Endpoint,
    /// Secret in the operator's namespace with `username` and `password` of the admin role.
    pub admin_secret_name: String,
}

/// Address of a database.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Endpoint {
    /// Host name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Database name.
    pub database: String,
    /// How TLS is used.
    #[serde(default)]
    pub ssl_mode: SslMode,
    /// True for a transaction pooler. Clients then keep no state in a session.
    #[serde(default)]
    pub pooled: bool,
}

/// libpq's `sslmode`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SslMode {
    /// No TLS.
    Disable,
    /// TLS if the server offers it.
    Prefer,
    /// TLS, whoever the server is.
    #[default]
    Require,
    /// TLS with a certificate of a known authority.
    VerifyCa,
    /// TLS with a certificate of a known authority for this host.
    VerifyFull,
}

impl SslMode {
    /// The word in a connection string.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Disable => "disable",
            Self::Prefer => "prefer",
            Self::Require => "require",
            Self::VerifyCa => "verify-ca",
            Self::VerifyFull => "verify-full",
        }
    }
}

/// The API server that serves the tenants.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ApiServer {
    /// Where it runs and keeps its Leases.
    pub namespace: String,
    /// The ServiceAccount that may read the tenants' Secrets.
    pub service_account_name: String,
    /// Its base URL inside the cluster, shown in `status.endpoint`.
    pub url: String,
    /// `<tenant>.<base domain>` is a host of each tenant.
    pub base_domain: String,
}

/// How ledgers are verified.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LedgerVerification {
    /// Image with `finaiflow-api`.
    pub image: String,
    /// When the image is pulled.
    #[serde(default = "if_not_present")]
    pub image_pull_policy: String,
}

/// Which hosts the Tenants of a namespace may claim.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HostSuffixes {
    /// A namespace, or `*` for any.
    pub namespace: String,
    /// A host is allowed if it is one of these or ends in `.` and one of these.
    pub suffixes: Vec<String>,
}

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Not the expected YAML; the message names line and field.
    #[error("parse the configuration: {0}")]
    Parse(#[from] serde_yaml::Error),
    /// A rule between fields is broken.
    #[error("configuration: {0}")]
    Rule(String),
}

impl Config {
    /// Reads and checks a file.
    pub fn load(path: &Path) -> Result<Self, Error> {
        let text = std::fs::read_to_string(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
        Self::parse(&text)
    }

    /// Parses and checks YAML.
    pub fn parse(yaml: &str) -> Result<Self, Error> {
        let config: Self = serde_yaml::from_str(yaml)?;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), Error> {
        if self.database_classes.is_empty() {
            return Err(Error::Rule("databaseClasses is empty: no Tenant could be provisioned".to_owned()));
        }
        if let Some(class) = self.database_classes.iter().find(|class| class.servers.is_empty()) {
            return Err(Error::Rule(format!("database class {} has no servers", class.name)));
        }
        unique("database class", self.database_classes.iter().map(|class| class.name.as_str()))?;
        unique("server", self.servers().map(|server| server.name.as_str()))?;
        self.backups.as_ref().map_or(Ok(()), Settings::check).map_err(Error::Rule)
    }

    /// Every server of every class.
    pub fn servers(&self) -> impl Iterator<Item = &Server> {
        self.database_classes.iter().flat_map(|class| &class.servers)
    }

    /// The class of that name.
    #[must_use]
    pub fn class(&self, name: &str) -> Option<&DatabaseClass> {
        self.database_classes.iter().find(|class| class.name == name)
    }

    /// Whether the operator may work in the namespace.
    #[must_use]
    pub fn serves_namespace(&self, namespace: &str) -> bool {
        self.tenant_namespaces.iter().any(|served| served == namespace)
    }

    /// Whether the platform team lets the namespace's Tenants claim the host.
    #[must_use]
    pub fn allows_host(&self, namespace: &str, host: &str) -> bool {
        self.host_suffixes
            .iter()
            .filter(|rule| rule.namespace == "*" || rule.namespace == namespace)
            .flat_map(|rule| &rule.suffixes)
            .any(|suffix| host == suffix || host.strip_suffix(suffix.as_str()).is_some_and(|rest| rest.ends_with('.')))
    }
}

fn unique<'a>(what: &str, names: impl Iterator<Item = &'a str>) -> Result<(), Error> {
    let mut seen = std::collections::BTreeSet::new();
    for name in names {
        if !seen.insert(name) {
            return Err(Error::Rule(format!("{what} {name} is listed twice")));
        }
    }
    Ok(())
}

fn if_not_present() -> String {
    "IfNotPresent".to_owned()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) const EXAMPLE: &str = "
databaseClasses:
  - name: default
    servers:
      - name: primary
        capacity: 500
        adminEndpoint: {host: pg.finaiflow-system.svc, port: 5432, database: finaiflow, sslMode: disable}
        tenantEndpoint:
          {host: pooler.finaiflow-system.svc, port: 6432, database: finaiflow, sslMode: verify-full, pooled: true}
        adminSecretName: finaiflow-postgres-admin
apiServer:
  namespace: finaiflow-system
  serviceAccountName: finaiflow-api
  url: http://finaiflow-api.finaiflow-system.svc:8000
  baseDomain: bank.local
ledgerVerification: {image: 'localhost/finaiflow-api:dev'}
tenantNamespaces: [banks]
hostSuffixes: [{namespace: banks, suffixes: [acme.example]}, {namespace: '*', suffixes: [shared.example]}]
";

    #[test]
    fn the_example_is_read() {
        let config = Config::parse(EXAMPLE).unwrap();
        let server = &config.class("default").unwrap().servers[0];
        assert_eq!(server.tenant_endpoint.ssl_mode, SslMode::VerifyFull);
        assert_eq!(config.ledger_verification.image_pull_policy, "IfNotPresent");
        assert!(config.serves_namespace("banks") && !config.serves_namespace("default"));
    }

    #[test]
    fn faults_are_named() {
        let twice = EXAMPLE.replace("ledgerVerification:", "extra: 1\nledgerVerification:");
        assert!(Config::parse(&twice).unwrap_err().to_string().contains("extra"));
        let none = EXAMPLE.replace("capacity: 500", "capacity: many");
        assert!(Config::parse(&none).unwrap_err().to_string().contains("capacity"));
        let (head, tail) = EXAMPLE.split_once("apiServer:").unwrap();
        let servers = head.split_once("servers:").unwrap().1;
        let same = format!("{head}  - name: other\n    servers:{servers}apiServer:{tail}");
        assert_eq!(Config::parse(&same).unwrap_err().to_string(), "configuration: server primary is listed twice");
    }

    #[test]
    fn a_suffix_matches_whole_labels() {
        let config = Config::parse(EXAMPLE).unwrap();
        for (namespace, host, allowed) in [
            ("banks", "acme.example", true),
            ("banks", "www.acme.example", true),
            ("banks", "evilacme.example", false),
            ("banks", "acme.example.org", false),
            ("other", "www.acme.example", false),
            ("other", "x.shared.example", true),
        ] {
            assert_eq!(config.allows_host(namespace, host), allowed, "{namespace} {host}");
        }
    }
}
