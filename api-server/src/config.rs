//! The command line. Every flag of `serve` has an environment variable, which is what the chart sets.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args, Parser, Subcommand};
use finaiflow_ledger::chain::Anchor;

use crate::rate_limit::Settings;
use crate::rate_limit::client_ip::TrustedProxies;
use crate::tenants::{Budget, Replica};

/// The API server of FinaiFlow.
#[derive(Debug, Parser)]
#[command(name = "finaiflow-api", version)]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

impl Cli {
    /// What to do: `serve`, configured by the environment alone, if nothing is said.
    #[must_use]
    pub fn into_command(self) -> Command {
        self.command.unwrap_or_else(|| Command::Serve(Box::new(Only::<Serve>::parse_from(["finaiflow-api"]).arguments)))
    }
}

/// Arguments without a subcommand.
#[derive(Parser)]
#[command(name = "finaiflow-api")]
struct Only<T: Args> {
    #[command(flatten)]
    arguments: T,
}

/// What the program can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serves the tenants of this cluster over HTTP (the default).
    Serve(Box<Serve>),
    /// Prints the OpenAPI description.
    Openapi,
    /// Verifies the ledger that the environment variable `DATABASE_URL` logs in to, and records the result there.
    VerifyLedger(VerifyLedger),
    /// What an auditor does, with neither database nor network.
    #[command(subcommand)]
    AuditChain(AuditChain),
}

/// How to serve.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct Serve {
    /// Address to listen on.
    #[arg(long, env = "FINAIFLOW_LISTEN", default_value = "0.0.0.0:8000")]
    pub listen: SocketAddr,
    /// `<tenant>.<base domain>` is a host of every tenant. Empty: no such hosts.
    #[arg(long, env = "FINAIFLOW_BASE_DOMAIN", default_value = "")]
    pub base_domain: String,
    /// Access tokens name `<issuer base URL>/tenants/<tenant>` as their issuer.
    #[arg(long, env = "FINAIFLOW_ISSUER_BASE_URL", default_value = "http://finaiflow-api:8000")]
    pub issuer_base_url: String,
    /// PostgreSQL connections this replica means to hold over all tenants.
    #[arg(long, env = "FINAIFLOW_CONNECTION_BUDGET", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    pub connection_budget: u32,
    /// Most replicas that serve at once: each takes no more than its part of a tenant's connections.
    #[arg(long, env = "FINAIFLOW_REPLICAS", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    pub replicas: u32,
    /// Namespace of the pod, where its Lease is kept.
    #[arg(long, env = "POD_NAMESPACE")]
    pub namespace: String,
    /// Name of the pod.
    #[arg(long, env = "POD_NAME")]
    pub pod_name: String,
    /// Uid of the pod; with it the Lease disappears with the pod.
    #[arg(long, env = "POD_UID")]
    pub pod_uid: Option<String>,
    /// Seconds to go on serving after the signal to stop, while load balancers take notice.
    #[arg(long, env = "FINAIFLOW_SHUTDOWN_DELAY_SECONDS", default_value = "5", value_parser = seconds)]
    pub shutdown_delay: Duration,
    /// Most seconds to wait after that for open requests.
    #[arg(long, env = "FINAIFLOW_DRAIN_SECONDS", default_value = "25", value_parser = seconds)]
    pub drain: Duration,
    /// Whether rate limits refuse requests; the switch for an emergency.
    #[arg(long, env = "RATE_LIMIT_ENABLED", default_value_t = true, action = ArgAction::Set)]
    pub rate_limit_enabled: bool,
    /// Requests per window of each user, and of each address without one, where no RateLimitPolicy says otherwise.
    #[arg(long, env = "RATE_LIMIT_REQUESTS", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    pub rate_limit_requests: u64,
    /// Length of that window in seconds.
    #[arg(long, env = "RATE_LIMIT_WINDOW", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=2_678_400))]
    pub rate_limit_window: u64,
    /// Networks of the proxies in front, separated by commas: what these say in `X-Forwarded-For` is believed.
    #[arg(long, env = "FINAIFLOW_TRUSTED_PROXIES", default_value = "")]
    pub trusted_proxies: TrustedProxies,
    /// Most requests that this replica works on at a time; of the rest, reading is refused first.
    #[arg(long, env = "FINAIFLOW_MAX_IN_FLIGHT", default_value_t = 4096, value_parser = clap::value_parser!(u32).range(1..))]
    pub max_in_flight: u32,
    /// Address of what operators may ask: which policy decides about a request.
    #[arg(long, env = "FINAIFLOW_ADMIN_LISTEN", default_value = "127.0.0.1:8001")]
    pub admin_listen: SocketAddr,
    /// Which log events to write, such as `info,sqlx=warn`.
    #[arg(long, env = "RUST_LOG", default_value = "info")]
    pub log: String,
}

impl Serve {
    /// The domain under which every tenant has a host, if there is one.
    #[must_use]
    pub fn base_domain(&self) -> Option<&str> {
        (!self.base_domain.is_empty()).then_some(self.base_domain.as_str())
    }

    /// How many connections this replica may hold.
    #[must_use]
    pub fn budget(&self) -> Budget {
        Budget { connections: self.connection_budget, replicas: self.replicas }
    }

    /// What the platform team says about requests.
    #[must_use]
    pub fn rate_limits(&self) -> Settings {
        Settings {
            enabled: self.rate_limit_enabled,
            requests: self.rate_limit_requests,
            window_seconds: self.rate_limit_window,
            trusted_proxies: self.trusted_proxies.clone(),
            max_in_flight: self.max_in_flight,
            home: self.namespace.clone(),
        }
    }

    /// This replica.
    #[must_use]
    pub fn replica(&self) -> Replica {
        Replica { namespace: self.namespace.clone(), pod: self.pod_name.clone(), pod_uid: self.pod_uid.clone() }
    }
}

/// How to verify a ledger. The URL holds a password, so it is no argument.
#[derive(Debug, Args)]
pub struct VerifyLedger {
    /// Which log events to write, such as `info,sqlx=warn`.
    #[arg(long, env = "RUST_LOG", default_value = "info")]
    pub log: String,
}

/// What can be done with an export of `GET /api/v1/audit-chain/export`.
#[derive(Debug, Subcommand)]
pub enum AuditChain {
    /// Proves an export: every hash, every journal, every account's entries, and that it passes through the anchors.
    /// Exit code 0 if all of it holds, 1 with the first fault on the first line if not, 2 if it cannot be read.
    Verify(VerifyExport),
}

/// Which export to prove, and by what.
#[derive(Debug, Args)]
pub struct VerifyExport {
    /// The export: a file, or `-` for standard input.
    #[arg(long, value_name = "FILE")]
    pub export: PathBuf,
    /// A point of the chain that was kept elsewhere, such as in a Tenant's status. Any number of them.
    #[arg(long, value_name = "EPOCH:SEQUENCE:HASH")]
    pub anchor: Vec<Anchor>,
}

fn seconds(text: &str) -> Result<Duration, std::num::ParseIntError> {
    text.parse().map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn serve(arguments: &[&str]) -> Result<Serve, clap::Error> {
        let fixed = ["finaiflow-api", "serve", "--namespace", "system", "--pod-name", "api-0"];
        match Cli::try_parse_from(fixed.iter().chain(arguments))?.into_command() {
            Command::Serve(serve) => Ok(*serve),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
        Only::<Serve>::command().debug_assert();
    }

    #[test]
    fn defaults_are_those_of_the_chart() {
        let serve = serve(&[]).unwrap();
        assert_eq!(serve.listen.port(), 8000);
        assert_eq!(serve.base_domain(), None);
        assert_eq!((serve.shutdown_delay, serve.drain), (Duration::from_secs(5), Duration::from_secs(25)));
        assert_eq!(serve.replica().pod, "api-0");
        let limits = serve.rate_limits();
        assert_eq!((limits.enabled, limits.requests, limits.window_seconds), (true, 100, 60));
        assert_eq!(limits.trusted_proxies, TrustedProxies::new(&[]));
    }

    #[test]
    fn anchors_are_read() {
        let anchor = format!("7:42:{}", "ab".repeat(32));
        let line =
            ["finaiflow-api", "audit-chain", "verify", "--export", "-", "--anchor", &anchor, "--anchor", &anchor];
        let Command::AuditChain(AuditChain::Verify(asked)) = Cli::try_parse_from(line).unwrap().into_command() else {
            panic!("another command")
        };
        assert_eq!(asked.anchor.iter().map(Anchor::to_string).collect::<Vec<_>>(), [&*anchor, &*anchor]);
        assert!(
            Cli::try_parse_from(["finaiflow-api", "audit-chain", "verify", "--export", "-", "--anchor", "7:42"])
                .is_err()
        );
    }

    #[test]
    fn values_are_checked() {
        assert_eq!(serve(&["--base-domain", "bank.local"]).unwrap().base_domain(), Some("bank.local"));
        let proxies = serve(&["--trusted-proxies", "10.0.0.0/8, fd00::/8"]).unwrap().rate_limits().trusted_proxies;
        let networks = ["10.0.0.0/8", "fd00::/8"].map(|network| network.parse().unwrap());
        assert_eq!(proxies, TrustedProxies::new(&networks));
        assert!(!serve(&["--rate-limit-enabled", "false"]).unwrap().rate_limits().enabled);
        for bad in [
            ["--trusted-proxies", "10.0.0.1"],
            ["--rate-limit-enabled", "maybe"],
            ["--rate-limit-requests", "0"],
            ["--listen", "8000"],
            ["--connection-budget", "0"],
            ["--drain", "-1"],
        ] {
            assert!(serve(&bad).is_err(), "{bad:?}");
        }
    }
}
