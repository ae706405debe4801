//! Transfers of two entries through cala-ledger, on a database that is its own.
//!
//! `URL open ACCOUNTS` prepares it. `URL post ACCOUNTS CALLERS BATCH SECONDS` warms up, prints `ready`, waits for a line,
//! and prints transfers, seconds and the microseconds that 50 %, 99 % and 99.9 % of the calls took at most.

use std::error::Error;
use std::io::stdin;
use std::time::{Duration, Instant};

use cala_ledger::account::NewAccount;
use cala_ledger::job::{JobSvcConfig, Jobs};
use cala_ledger::journal::NewJournal;
use cala_ledger::posting::PostingInput;
use cala_ledger::tx_template::{
    NewParamDefinition, NewTxTemplate, NewTxTemplateEntry, NewTxTemplateTransaction, ParamDataType, Params,
};
use cala_ledger::{AccountId, CalaLedger, CalaLedgerConfig, JournalId, TransactionId, TxTemplateId};
use sqlx::postgres::PgPoolOptions;
use tokio::task::JoinSet;
use uuid::Uuid;

type Failure = Box<dyn Error + Send + Sync>;

const TEMPLATE: &str = "TRANSFER";
const WARM_UP: Duration = Duration::from_millis(500);

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |place: usize| {
        arguments.get(place).ok_or("too few arguments: see src/main.rs")?.parse::<usize>().map_err(Failure::from)
    };
    let opens = arguments.get(1).is_some_and(|command| command == "open");
    let pool = PgPoolOptions::new().max_connections(64).connect(&arguments[0]).await?;
    let mut jobs = Jobs::init(JobSvcConfig::builder().pool(pool.clone()).build()?).await?;
    let config = CalaLedgerConfig::builder().pool(pool).exec_migrations(opens).build()?;
    let cala = CalaLedger::init(config, &mut jobs).await?;
    if opens {
        return open(&cala, number(2)?).await;
    }
    let (accounts, callers, batch, seconds) = (number(2)?, number(3)?, number(4)?, number(5)?);
    call(&cala, accounts, callers, batch, WARM_UP).await?;
    println!("ready");
    stdin().read_line(&mut String::new())?;
    let began = Instant::now();
    let latencies = call(&cala, accounts, callers, batch, Duration::from_secs(seconds as u64)).await?;
    let at = |part: usize| latencies[(latencies.len() * part).div_ceil(1000) - 1];
    println!("{} {} {} {} {}", latencies.len() * batch, began.elapsed().as_secs_f64(), at(500), at(990), at(999));
    Ok(())
}

/// A journal, a template of transfers, and accounts.
async fn open(cala: &CalaLedger, accounts: usize) -> Result<(), Failure> {
    cala.journals().create(NewJournal::builder().id(journal()).name("bench").build()).await?;
    cala.tx_templates().create(template()?).await?;
    let numbers: Vec<_> = (0..accounts).collect();
    for chunk in numbers.chunks(1000) {
        let account = |number: &usize| {
            NewAccount::builder()
                .id(account(*number))
                .name(format!("Account {number}"))
                .code(number.to_string())
                .build()
        };
        cala.accounts().create_all(chunk.iter().map(account).collect()).await?;
    }
    Ok(())
}

/// Callers who post one batch after the other; how long each took, in order.
async fn call(
    cala: &CalaLedger,
    accounts: usize,
    callers: usize,
    batch: usize,
    time: Duration,
) -> Result<Vec<u128>, Failure> {
    let began = Instant::now();
    let mut tasks = JoinSet::new();
    for caller in 0..callers {
        let (cala, mut dice) = (cala.clone(), caller as u64 + 1);
        tasks.spawn(async move {
            let mut latencies = Vec::new();
            while began.elapsed() < time {
                let asked = Instant::now();
                if batch == 1 {
                    let PostingInput { tx_id, params, .. } = transfer(&mut dice, accounts);
                    cala.post_transaction(tx_id, TEMPLATE, params).await?;
                } else {
                    let transfers = (0..batch).map(|_| transfer(&mut dice, accounts)).collect();
                    cala.post_transactions(transfers).await?;
                }
                latencies.push(asked.elapsed().as_micros());
            }
            Ok::<_, Failure>(latencies)
        });
    }
    let mut latencies = Vec::new();
    while let Some(done) = tasks.join_next().await {
        latencies.extend(done??);
    }
    latencies.sort_unstable();
    Ok(latencies)
}

fn transfer(dice: &mut u64, accounts: usize) -> PostingInput {
    let mut roll = || {
        *dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (*dice >> 33) as usize % accounts
    };
    let (from, to) = (roll(), roll());
    let to = if to == from { (to + 1) % accounts } else { to };
    let id = TransactionId::new();
    let mut params = Params::new();
    params.insert("sender", account(from));
    params.insert("recipient", account(to));
    // Unique, as an idempotency key is.
    params.insert("reference", id.to_string());
    PostingInput::new(id, TEMPLATE, params)
}

fn template() -> Result<NewTxTemplate, Failure> {
    let param = |name: &str, kind| NewParamDefinition::builder().name(name).r#type(kind).build();
    let entry = |kind: &str, account: &str, direction: &str| {
        NewTxTemplateEntry::builder()
            .entry_type(kind)
            .account_id(account)
            .layer("SETTLED")
            .direction(direction)
            .units("decimal('1')")
            .currency("'USD'")
            .build()
    };
    let transaction = NewTxTemplateTransaction::builder()
        .effective("date()")
        .journal_id(format!("uuid('{}')", journal()))
        .external_id("params.reference")
        .build()?;
    let params = vec![
        param("sender", ParamDataType::Uuid)?,
        param("recipient", ParamDataType::Uuid)?,
        param("reference", ParamDataType::String)?,
    ];
    let entries =
        vec![entry("'TRANSFER_DR'", "params.sender", "DEBIT")?, entry("'TRANSFER_CR'", "params.recipient", "CREDIT")?];
    let template = NewTxTemplate::builder().id(TxTemplateId::from(Uuid::from_u128(1))).code(TEMPLATE);
    Ok(template.params(params).transaction(transaction).entries(entries).build())
}

fn journal() -> JournalId {
    Uuid::from_u128(1).into()
}

fn account(number: usize) -> AccountId {
    Uuid::from_u128(number as u128 + 1).into()
}
