//! Whether what lies at a destination can be restored, and what is wrong with it; proven by restoring it.

use std::fmt;
use std::time::Duration;

use finaiflow_ledger::chain::{Anchor, Hash};
use finaiflow_ledger::id::Sequence;
use finaiflow_ledger::verify as ledger;
use finaiflow_schema::names::{ClaimId, TenantNames};
use sqlx::PgConnection;
use tokio::time::Instant;

use crate::manifest::chain::{Chains, Flaw};
use crate::manifest::{ArtefactId, TrustedKeys};
use crate::restore::{self, Plan, Restored, Target, Use};
use crate::rows::{self, Moment};
use crate::scratch;
use crate::seal::{self, Identities};
use crate::survey::Survey;
use crate::vault::{self, Trouble, Vault};

/// What is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Check {
    /// A manifest is genuine, and that of its artefact.
    Manifest,
    /// What an artefact follows is there and fits.
    Chain,
    /// An object is there and as it was sealed.
    Object,
    /// It can be opened with the keys at hand.
    Key,
    /// The rows are those that were counted.
    Rows,
    /// The rows make a bank.
    Restore,
    /// The ledger is what its rules allow.
    Ledger,
    /// Debits are credits.
    Balance,
    /// The ledger goes through the head that was kept outside the database.
    Anchor,
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Manifest => "manifest",
            Self::Chain => "chain",
            Self::Object => "object",
            Self::Key => "key",
            Self::Rows => "rows",
            Self::Restore => "restore",
            Self::Ledger => "ledger",
            Self::Balance => "balance",
            Self::Anchor => "anchor",
        })
    }
}

/// What is wrong. It holds no data of the bank.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The check that failed.
    pub check: Check,
    /// The artefact, if it is about one.
    pub artefact: Option<ArtefactId>,
    /// What was seen, for people.
    pub message: String,
}

impl Finding {
    fn new(check: Check, artefact: impl Into<Option<ArtefactId>>, message: impl fmt::Display) -> Self {
        Self { check, artefact: artefact.into(), message: message.to_string() }
    }
}

impl From<Finding> for finaiflow_crds::backup::Finding {
    fn from(Finding { check, artefact, message }: Finding) -> Self {
        Self { check: check.to_string(), artifact: artefact.map(|id| id.to_string()), message }
    }
}

/// What came of a verification.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// The newest artefact that was read; none if there is none to read.
    pub artefact: Option<ArtefactId>,
    /// What is wrong.
    pub findings: Vec<Finding>,
    /// How long it took until the data was there and checked.
    pub restored_in: Option<Duration>,
}

/// Why nothing could be said.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The destination.
    #[error(transparent)]
    Vault(#[from] vault::Error),
    /// The database to restore into cannot be used.
    #[error("the database to restore into: {0}")]
    Scratch(#[from] finaiflow_schema::Error),
    /// What was restored could not be read.
    #[error("what was restored cannot be read: {0}")]
    Rows(#[from] rows::Error),
}

/// What has to be known to verify.
#[derive(Debug)]
pub struct Order<'a> {
    /// The bank.
    pub claim: ClaimId,
    /// Those whose manifests are believed.
    pub trusted: &'a TrustedKeys,
    /// What opens objects.
    pub identities: &'a Identities,
    /// A head of the ledger that was kept outside the database.
    pub anchor: Option<Anchor>,
}

/// Where to restore, to throw it away afterwards: a superuser's connection, and an identity that no bank has.
#[derive(Debug)]
pub struct Scratch<'a> {
    /// The connection.
    pub conn: &'a mut PgConnection,
    /// The identity.
    pub claim: ClaimId,
}

/// Looks at all manifests and whether their objects are there, and reads and opens what the newest backup takes. With a database to
/// restore into, that is restored and checked, too, unless it is damaged already.
///
/// An error means that nothing can be said.
pub async fn verify(vault: &Vault, order: &Order<'_>, scratch: Option<Scratch<'_>>) -> Result<Verified, Error> {
    let mut survey = Survey::of(vault).await?;
    survey.read_all(order.trusted, order.claim).await?;
    let chains = survey.chains();
    let mut findings = listed(&survey, &chains);
    let plan = match Plan::of(&chains, Target::Latest) {
        Ok(plan) => plan,
        Err(error) => {
            findings.push(Finding::new(Check::Chain, None, error));
            return Ok(Verified { artefact: None, findings, restored_in: None });
        }
    };
    let artefact = plan.last().id;
    let mut damaged = false;
    for signed in plan.artefacts() {
        let read = restore::check(vault, signed.manifest(), order.identities).await;
        if let Err(error) = read {
            damaged = true;
            let finding = found(error, signed.manifest().id)?;
            // What is not there was listed.
            if !findings.iter().any(|listed| (listed.check, listed.artefact) == (finding.check, finding.artefact)) {
                findings.push(finding);
            }
        }
    }
    let mut restored_in = None;
    if let Some(scratch) = scratch.filter(|_| !damaged) {
        let rehearsed = rehearse(vault, order, &plan, scratch).await?;
        findings.extend(rehearsed.findings);
        restored_in = rehearsed.restored.map(|(_, took)| took);
    }
    Ok(Verified { artefact: Some(artefact), findings, restored_in })
}

/// What manifests and lengths tell.
fn listed(survey: &Survey, chains: &Chains) -> Vec<Finding> {
    let flaws = chains.flaws().iter().filter_map(|(id, flaw)| match flaw {
        // The ancestor is named itself.
        Flaw::BrokenAncestor { .. } => None,
        Flaw::Manifest(_) => Some(Finding::new(Check::Manifest, *id, flaw)),
        _ => Some(Finding::new(Check::Chain, *id, flaw)),
    });
    let objects = chains.sound().filter(|signed| !survey.has_object(signed)).map(|signed| {
        let manifest = signed.manifest();
        let there = survey.objects.get(&manifest.id).map(|found| found.bytes);
        let message = match there {
            Some(bytes) => format!("the object has {bytes} bytes instead of {}", manifest.object.bytes),
            None => "the object is missing".to_owned(),
        };
        Finding::new(Check::Object, manifest.id, message)
    });
    flaws.chain(objects).collect()
}

/// What a failure says of an artefact, if it says anything.
fn found(error: restore::Error, artefact: ArtefactId) -> Result<Finding, Error> {
    use restore::Error as Failure;
    let check = match error {
        Failure::Seal(seal::Error::Io(error)) => {
            let error = vault::Error::of(error, "read the object");
            return if error.trouble == Trouble::Corrupt {
                Ok(Finding::new(Check::Object, artefact, error))
            } else {
                Err(error.into())
            };
        }
        Failure::Vault(error) if !matches!(error.trouble, Trouble::NotFound | Trouble::Corrupt) => {
            return Err(error.into());
        }
        Failure::Seal(seal::Error::WrongIdentity) => Check::Key,
        Failure::Seal(_) | Failure::Vault(_) | Failure::OtherObject(_) => Check::Object,
        Failure::Rows(rows::Error::Differs(_)) => Check::Rows,
        Failure::Forged(_) => Check::Anchor,
        Failure::Rows(_) | Failure::Version { .. } | Failure::Schema(_) => Check::Restore,
    };
    Ok(Finding::new(check, artefact, error))
}

/// What came of a restore into a database that is thrown away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rehearsed {
    /// What came back, and how long it took until it was there and checked.
    pub restored: Option<(Restored, Duration)>,
    /// What is wrong.
    pub findings: Vec<Finding>,
}

/// Restores a plan, notes what is wrong with the bank that comes of it, and takes that away again.
pub async fn rehearse(
    vault: &Vault,
    order: &Order<'_>,
    plan: &Plan<'_>,
    Scratch { conn, claim }: Scratch<'_>,
) -> Result<Rehearsed, Error> {
    let (began, artefact) = (Instant::now(), plan.last().id);
    let names = scratch::make(conn, &claim).await?;
    let outcome = match restore::restore(conn, &names, vault, plan, order.identities, Use::Look).await {
        Ok(restored) => bank(conn, &names, artefact, restored.head, order.anchor)
            .await
            .map(|findings| Rehearsed { restored: Some((restored, began.elapsed())), findings }),
        Err(error) => found(error, artefact).map(|finding| Rehearsed { restored: None, findings: vec![finding] }),
    };
    let gone = scratch::unmake(conn, &names).await;
    let rehearsed = outcome?;
    gone?;
    Ok(rehearsed)
}

/// What is wrong with a bank that was restored from an artefact, with its ledger's head at `end`.
pub async fn bank(
    conn: &mut PgConnection,
    names: &TenantNames,
    artefact: ArtefactId,
    end: Anchor,
    anchor: Option<Anchor>,
) -> Result<Vec<Finding>, Error> {
    let moment = Moment::open(conn, Some(names)).await?;
    let unequal = moment.balances.iter().filter(|balance| balance.debits != balance.credits);
    let mut findings: Vec<_> = unequal
        .map(|balance| {
            Finding::new(Check::Balance, artefact, format!("debits in {} are not its credits", balance.currency))
        })
        .collect();
    moment.close().await?;
    let path = "SELECT set_config('search_path', quote_ident($1) || ', pg_temp', false)";
    sqlx::query(path).bind(names.schema.as_str()).execute(&mut *conn).await.map_err(rows::Error::from)?;
    let report = ledger::run(conn).await.map_err(rows::Error::from)?;
    // Not its detail, which tells amounts.
    findings.extend(report.findings.iter().map(|wrong| {
        let journal = wrong.sequence.map(|sequence| format!(", journal {sequence}")).unwrap_or_default();
        let account = wrong.account_id.map(|account| format!(", account {account}")).unwrap_or_default();
        Finding::new(Check::Ledger, artefact, format!("{}{journal}{account}", wrong.check))
    }));
    if let Some(anchor) = anchor {
        findings.extend(off_anchor(conn, anchor, end).await?.map(|why| Finding::new(Check::Anchor, artefact, why)));
    }
    Ok(findings)
}

/// Why a ledger that ends at `end` does not go through an anchor. One that has not come that far says nothing.
async fn off_anchor(conn: &mut PgConnection, anchor: Anchor, end: Anchor) -> Result<Option<String>, Error> {
    let journal = "SELECT epoch, hash FROM journals WHERE sequence = $1";
    let there: Option<(i32, [u8; 32])> = sqlx::query_as(journal)
        .bind(i64::from(anchor.sequence))
        .fetch_optional(conn)
        .await
        .map_err(rows::Error::from)?;
    let number = i64::from(anchor.sequence);
    Ok(match there {
        Some((epoch, hash)) if (epoch.unsigned_abs(), Hash(hash)) == (anchor.epoch, anchor.hash) => None,
        Some(_) => Some(format!("journal {number} is not the one that was anchored")),
        None if anchor.sequence == Sequence::ZERO => None,
        None if end.sequence < anchor.sequence && end.epoch <= anchor.epoch => None,
        None => Some(format!("journal {number}, which was anchored, is not there")),
    })
}
