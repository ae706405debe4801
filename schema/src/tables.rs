//! What the tenant schema contains, and what follows from it.
//!
//! Each table has a class; grants, triggers, and later backup and digest, are generated from it. The functions are
//! listed with who may call them. [`crate::conformance`] refuses a schema that differs.

use std::fmt::Write as _;

/// How a table's rows live, hence how they are protected and backed up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Immutable, keyed by the ledger sequence. Written by the engine's functions only; updates and deletes are refused.
    Money,
    /// Inserted only; each row carries the transaction id that wrote it (`xid`).
    Append,
    /// Mutable; every change is recorded in `_changes`.
    Logged,
    /// Can be computed from other tables.
    Derived,
    /// Rows lose their meaning at a time of their own and are deleted after it.
    Expiring,
    /// Means nothing after a restart.
    Ephemeral,
}

impl Class {
    /// The word for it in a backup's manifest.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Money => "money",
            Self::Append => "append",
            Self::Logged => "logged",
            Self::Derived => "derived",
            Self::Expiring => "expiring",
            Self::Ephemeral => "ephemeral",
        }
    }
}

/// Who writes a table directly. Reading follows: all but [`Writer::Owner`]'s tables are readable by the app.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writer {
    /// The API server's login, with the statements its class allows.
    App,
    /// Only the SQL functions the API server may call.
    Engine,
    /// The ledger-verification job.
    Maintenance,
    /// Nobody but the owner: triggers and migrations.
    Owner,
}

/// A table of the tenant schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Table {
    /// Its name.
    pub name: &'static str,
    /// How its rows live.
    pub class: Class,
    /// Its primary key's columns.
    pub primary_key: &'static [&'static str],
    /// Who writes it.
    pub writer: Writer,
    /// Whether the ledger-verification job reads it.
    pub audited: bool,
}

impl Table {
    /// Whether a backup may read it. Who is logged in is nobody else's business, and not restored.
    #[must_use]
    pub fn is_read_by_backup(&self) -> bool {
        self.class != Class::Ephemeral && !["sessions", "refresh_tokens"].contains(&self.name)
    }

    /// Whether a backup holds its rows. What only the owner writes is made anew where it is restored.
    #[must_use]
    pub fn is_backed_up(&self) -> bool {
        self.is_read_by_backup() && self.writer != Writer::Owner
    }
}

const fn table(name: &'static str, class: Class, primary_key: &'static [&'static str], writer: Writer) -> Table {
    Table { name, class, primary_key, writer, audited: false }
}

const fn audited(name: &'static str, class: Class, primary_key: &'static [&'static str]) -> Table {
    Table { name, class, primary_key, writer: Writer::Engine, audited: true }
}

/// Every table of the tenant schema.
pub const TABLES: &[Table] = &[
    table("_changes", Class::Append, &["seq"], Writer::Owner),
    table("schema_migrations", Class::Derived, &["version"], Writer::Owner),
    table("users", Class::Logged, &["id"], Writer::App),
    table("sessions", Class::Expiring, &["id"], Writer::App),
    table("refresh_tokens", Class::Expiring, &["hash"], Writer::App),
    audited("accounts", Class::Logged, &["id"]),
    audited("account_balances", Class::Derived, &["account_id"]),
    audited("journals", Class::Money, &["sequence"]),
    audited("entries", Class::Money, &["account_id", "seq"]),
    audited("holds", Class::Logged, &["id"]),
    audited("ledger_head", Class::Derived, &["id"]),
    table("idempotency_keys", Class::Expiring, &["principal", "key"], Writer::Engine),
    table("audit_events", Class::Append, &["id"], Writer::App),
    table("outbox", Class::Logged, &["id"], Writer::App),
    table("ledger_verifications", Class::Append, &["id"], Writer::Maintenance),
];

/// A function of the tenant schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Function {
    /// Name and argument types as PostgreSQL spells them.
    pub signature: &'static str,
    /// Whether the app may call it, which makes it `SECURITY DEFINER`.
    pub app: bool,
}

/// The batch's place and time, then the columns of its journals, entries, answers and audit events.
const APPLY_BATCH: &str = "apply_batch(integer, bigint, timestamp with time zone, \
    text[], uuid[], text[], bigint[], bigint[], date[], text[], text[], text[], text[], text[], bytea[], bytea[], text[], text[], \
    bigint[], smallint[], bigint[], bigint[], bigint[], bigint[], bigint[], bigint[], bigint[], bigint[], \
    uuid[], text[], bytea[], bigint[], text[], \
    uuid[], text[], text[], text[], text[], text[], text[])";

const KEEP_OUTCOMES: &str = "keep_outcomes(uuid[], text[], bytea[], bigint[], text[], timestamp with time zone)";

/// Every function of the tenant schema.
pub const FUNCTIONS: &[Function] = &[
    Function { signature: "lock_head()", app: true },
    Function { signature: APPLY_BATCH, app: true },
    Function { signature: "remember_outcome(uuid, text, bytea, jsonb)", app: true },
    Function { signature: "expire(integer)", app: true },
    Function { signature: KEEP_OUTCOMES, app: false },
    Function { signature: "open_accounts(bigint)", app: false },
    Function { signature: "change_accounts(bigint)", app: false },
    Function { signature: "book_holds(bigint)", app: false },
    Function { signature: "check_reversals(bigint)", app: false },
    Function { signature: "record_change()", app: false },
    Function { signature: "refuse_change()", app: false },
];

/// The triggers of a table as `(name, events and function)`, such as `("no_truncate", "BEFORE TRUNCATE ...")`.
pub(crate) fn triggers(table: &Table) -> Vec<(&'static str, String)> {
    let refuse =
        |events: &str| format!("BEFORE {events} ON {} FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()", table.name);
    match table.class {
        Class::Money => vec![("immutable", refuse("UPDATE OR DELETE OR TRUNCATE"))],
        Class::Append => vec![("no_truncate", refuse("TRUNCATE"))],
        Class::Logged => {
            let key = table.primary_key.iter().map(|column| format!("'{column}'")).collect::<Vec<_>>().join(", ");
            let record = format!(
                "AFTER INSERT OR UPDATE OR DELETE ON {} FOR EACH ROW EXECUTE FUNCTION record_change({key})",
                table.name
            );
            vec![("record_change", record), ("no_truncate", refuse("TRUNCATE"))]
        }
        Class::Derived | Class::Expiring | Class::Ephemeral => vec![],
    }
}

/// SQL that makes every table's triggers, to run with the tenant's `search_path`.
pub(crate) fn triggers_sql() -> String {
    TABLES.iter().flat_map(triggers).fold(String::new(), |mut sql, (name, body)| {
        let _ = writeln!(sql, "CREATE OR REPLACE TRIGGER {name} {body};");
        sql
    })
}
