//! The kinds of text in requests and answers, each described once: what fits here is not refused for its form.

use serde_json::{Value, json};
use utoipa::openapi::schema::AdditionalProperties;
use utoipa::openapi::{KnownFormat, ObjectBuilder, RefOr, Schema, SchemaFormat, Type};
use utoipa::{PartialSchema, ToSchema};

use finaiflow_ledger::{batch, command};

/// Texts: description, pattern, fewest and most characters, example.
macro_rules! texts {
    ($($(#[doc = $doc:literal])+ $name:ident($pattern:expr, $min:expr, $max:expr, $example:expr);)+) => {$(
        $(#[doc = $doc])+
        pub(crate) enum $name {}

        impl PartialSchema for $name {
            fn schema() -> RefOr<Schema> {
                let text = described(concat!($($doc),+), $example.into());
                text.pattern(Some($pattern)).min_length(Some($min)).max_length(Some($max)).into()
            }
        }
        impl ToSchema for $name {}
    )+};
}

/// Words: description and every variant of the ledger's type, the example first.
macro_rules! words {
    ($($(#[doc = $doc:literal])+ $module:ident::$name:ident { $($variant:ident),+ })+) => {$(
        $(#[doc = $doc])+
        pub(crate) enum $name {}

        impl PartialSchema for $name {
            fn schema() -> RefOr<Schema> {
                use $module::$name::{$($variant),+};
                // A variant that is not listed does not compile.
                let word = |word| match word { $($variant)|+ => json!(word) };
                let words = [$(word($variant)),+];
                described(concat!($($doc),+), words[0].clone()).enum_values(Some(words)).into()
            }
        }
        impl ToSchema for $name {}
    )+};
}

fn described(doc: &str, example: Value) -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::String).description(Some(doc.trim())).examples([example])
}

/// Neither a control character nor nothing but white space.
const LINE: &str = r"^[^\x00-\x1f\x7f-\x9f]*[^\s\x00-\x1f\x7f-\x9f][^\x00-\x1f\x7f-\x9f]*$";

/// What `domain::email` takes.
fn email() -> String {
    let (edge, inner) = (r"[^\s@.\x00-\x1f\x7f-\x9f-]", r"[^\s@.\x00-\x1f\x7f-\x9f]");
    let label = format!("{edge}({inner}*{edge})?");
    format!(r"^\s*[^\s@\x00-\x1f\x7f-\x9f]+@({label}\.)+{label}\s*$")
}

texts! {
    /// Name of a tenant.
    TenantName(r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", 1, 40, "acme");
    /// 1 to 255 visible ASCII characters, unique per user and write.
    IdempotencyKey(r"^[!-~]+$", 1, 255, "5c2f8a52-8d3c-4f1e-9c0e-2f7f3b8f0f11");
    /// `next_cursor` of an earlier answer.
    Cursor(r"^[a-z2-7]{12}[acegikmoqsuwy246]$", 13, 13, "aaaaaaaaaaaai");

    /// Id of a user.
    UserId(r"^usr_[a-z2-7]{25}[aeimquy4]$", 30, 30, "usr_agnm2kjvkv3tnc5hqzq3xv2m5e");
    /// Id of an account.
    AccountId(r"^acc_[a-z2-7]{16}$", 20, 20, "acc_aaaaaaiaaaaaaaab");
    /// Id of a transaction.
    TransactionId(r"^txn_[a-z2-7]{18}$", 22, 22, "txn_aaaaaaiaaaaaaaabae");
    /// Id of a transfer.
    TransferId(r"^trf_[a-z2-7]{16}$", 20, 20, "trf_aaaaaaiaaaaaaaam");
    /// Id of a hold.
    HoldId(r"^hld_[a-z2-7]{16}$", 20, 20, "hld_aaaaaaiaaaaaaaan");
    /// Id of a journal.
    JournalId(r"^jrn_[a-z2-7]{16}$", 20, 20, "jrn_aaaaaaiaaaaaaaam");

    /// SHA-256 in hexadecimal.
    ChainHash(r"^[0-9a-f]{64}$", 64, 64, "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08");

    /// Currency, by its ISO 4217 code. `GET /api/v1/info` lists the tenant's.
    Currency(r"^[A-Z]{3}$", 3, 3, "USD");
    /// E-mail address; case and white space around it do not matter.
    Email(email(), 5, 254, "ada@example.com");
    /// Name of a person.
    PersonName(LINE, 1, 200, "Ada Lovelace");
    /// The owner's name for an account.
    AccountName(LINE, 1, 100, "Everyday");
    /// For the statement.
    Description(LINE, 1, 500, "Rent March");
    /// For budgets and reports.
    Category(LINE, 1, 64, "housing");
    /// The caller's own number.
    Reference(LINE, 1, 128, "INV-2026-0042");
    /// Why an account is changed; kept with the change.
    ReasonText(LINE, 1, 500, "reported by the customer");
    /// Part of a description or of a reference.
    SearchText(LINE, 1, 128, "rent");
}

/// A day.
pub(crate) enum Day {}

impl PartialSchema for Day {
    fn schema() -> RefOr<Schema> {
        described("A day.", json!("2026-03-01")).format(Some(SchemaFormat::KnownFormat(KnownFormat::Date))).into()
    }
}
impl ToSchema for Day {}

/// A moment.
pub(crate) enum Moment {}

impl PartialSchema for Moment {
    fn schema() -> RefOr<Schema> {
        let format = SchemaFormat::KnownFormat(KnownFormat::DateTime);
        described("A moment, RFC 3339.", json!("2026-03-01T12:00:00Z")).format(Some(format)).into()
    }
}
impl ToSchema for Moment {}

/// The caller's own names and values.
pub(crate) enum Metadata {}

impl PartialSchema for Metadata {
    fn schema() -> RefOr<Schema> {
        let name = ObjectBuilder::new().schema_type(Type::String).pattern(Some(LINE)).min_length(Some(1));
        let value = ObjectBuilder::new().schema_type(Type::String).pattern(Some(r"^[^\x00-\x1f\x7f-\x9f]*$"));
        ObjectBuilder::new()
            .schema_type(Type::Object)
            .description(Some("The caller's own names and values, which mean nothing to the bank."))
            .max_properties(Some(20))
            .property_names(Some(name.max_length(Some(40)).build()))
            .additional_properties(Some(AdditionalProperties::<Schema>::RefOr(
                value.max_length(Some(500)).build().into(),
            )))
            .examples([json!({"order": "A-1042"})])
            .into()
    }
}
impl ToSchema for Metadata {}

words! {
    /// What an account is for.
    command::AccountType { Checking, Savings, Business, Investment }
    /// Whether an account takes part in movements.
    command::AccountStatus { Active, Frozen, Closed }
    /// Whose money an account holds.
    command::AccountKind { Settlement, Fee, Position, Customer }
    /// The side on which an account grows.
    command::NormalSide { Debit, Credit }
    /// What a movement is from the account's point of view.
    command::TransactionType { Deposit, Withdrawal, TransferIn, TransferOut, Capture, Journal, Reversal }
    /// How far a movement has come.
    command::MovementStatus { Completed, Pending, Canceled, Reversed }
    /// How far a hold has come.
    command::HoldStatus { Held, Captured, Voided, Expired }
    /// What a journal records.
    batch::JournalKind {
        Journal, Reversal, AccountOpened, AccountChanged, Deposit, Withdrawal, Transfer, HoldPlaced, HoldCaptured,
        HoldVoided, HoldExpired, LedgerForked
    }
}
