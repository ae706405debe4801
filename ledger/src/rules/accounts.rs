//! Opening and changing accounts.

use std::sync::Arc;

use uuid::Uuid;

use super::{AccountState, Described, Draft, Heading, Spent};
use crate::batch::{ChangeDetail, JournalKind, OpeningDetail};
use crate::command::{
    Account, AccountChange, AccountKind, AccountStatus, AccountType, Authority, Command, Limits, Memo, Metadata,
    Outcome, Rejection,
};
use crate::id::AccountId;
use crate::money::Currency;

impl Draft {
    pub(super) fn open_customer(
        &mut self,
        command: &Command,
        owner: Uuid,
        account_type: AccountType,
        currency: Currency,
        (name, metadata): (&str, &Metadata),
    ) -> Result<Outcome, Rejection> {
        if command.authority == Authority::Owner && owner != command.principal {
            return Err(Rejection::Forbidden);
        }
        let account = AccountState {
            owner: Some(owner),
            account_type: Some(account_type),
            limits: Some(Limits::default()),
            ..self.fresh(AccountKind::Customer, currency, name, metadata)
        };
        let id = self.open(command, account)?;
        Ok(Outcome::AccountOpened(self.view(id)?))
    }

    pub(super) fn open_internal(
        &mut self,
        command: &Command,
        kind: AccountKind,
        currency: Currency,
        name: &str,
    ) -> Result<Outcome, Rejection> {
        if command.authority != Authority::Staff || kind == AccountKind::Customer {
            return Err(Rejection::Forbidden);
        }
        if kind == AccountKind::Settlement && self.state.settlements.contains_key(&currency) {
            return Err(Rejection::StatusConflict);
        }
        let account = self.fresh(kind, currency, name, &Metadata::new());
        self.open(command, account).map(Outcome::InternalOpened)
    }

    /// The settlement account of a currency, opened if this is the first time it is needed.
    pub(super) fn settlement(&mut self, command: &Command, currency: Currency) -> Result<AccountId, Rejection> {
        if let Some(id) = self.state.settlements.get(&currency) {
            return Ok(*id);
        }
        let name = format!("{currency} settlement");
        let account = self.fresh(AccountKind::Settlement, currency, &name, &Metadata::new());
        self.open(command, account)
    }

    fn fresh(&self, kind: AccountKind, currency: Currency, name: &str, metadata: &Metadata) -> AccountState {
        AccountState {
            kind,
            owner: None,
            account_type: None,
            currency,
            status: AccountStatus::Active,
            limits: None,
            posted: 0,
            held: 0,
            version: 0,
            spent: Spent { on: self.time.date(), day: 0, month: 0 },
            described: Arc::new(Described { name: name.to_owned(), metadata: metadata.clone(), created_at: self.time }),
        }
    }

    fn open(&mut self, command: &Command, account: AccountState) -> Result<AccountId, Rejection> {
        let kind = as_text(&account.kind);
        let detail = OpeningDetail {
            owner: account.owner,
            account_type: account.account_type.as_ref().map_or_else(|| kind.clone(), as_text),
            kind,
        };
        let (name, metadata) = (account.described.name.clone(), account.described.metadata.clone());
        let heading = Heading {
            command,
            kind: JournalKind::AccountOpened,
            currency: account.currency,
            amount: 0,
            refers_to: None,
            memo: Memo { description: Some(name), metadata, ..Memo::default() },
            detail: as_json(&detail),
        };
        let journal = self.book(heading, &[])?;
        let id = AccountId { epoch: journal.epoch, sequence: journal.sequence };
        if account.kind == AccountKind::Settlement {
            self.state.settlements.insert(account.currency, id);
        }
        self.state.accounts.insert(id, account);
        Ok(id)
    }

    pub(super) fn change_account(
        &mut self,
        command: &Command,
        id: AccountId,
        change: &AccountChange,
    ) -> Result<Outcome, Rejection> {
        let mut account = self.acted_on(command, id)?.clone();
        let staff_only =
            matches!(change, AccountChange::Freeze { .. } | AccountChange::Unfreeze { .. } | AccountChange::Limit(_));
        if staff_only && command.authority != Authority::Staff {
            return Err(Rejection::Forbidden);
        }
        let mut detail = ChangeDetail { account: id.sequence, status: None, limits: None, clears_metadata: false };
        let mut memo = Memo::default();
        let was = account.status;
        if was == AccountStatus::Closed {
            return Err(Rejection::StatusConflict);
        }
        let mut become_status = |from: &[AccountStatus], to, reason: &Option<String>| {
            memo.reference.clone_from(reason);
            detail.status = Some(to);
            if from.contains(&was) { Ok(to) } else { Err(Rejection::StatusConflict) }
        };
        match change {
            AccountChange::Freeze { reason } => {
                account.status = become_status(&[AccountStatus::Active], AccountStatus::Frozen, reason)?;
            }
            AccountChange::Unfreeze { reason } => {
                account.status = become_status(&[AccountStatus::Frozen], AccountStatus::Active, reason)?;
            }
            AccountChange::Close { reason } => {
                // A frozen account is closed by staff only: its owner must not slip away from an inquiry.
                let from = [AccountStatus::Active, AccountStatus::Frozen];
                let from = if command.authority == Authority::Staff { &from[..] } else { &from[..1] };
                account.status = become_status(from, AccountStatus::Closed, reason)?;
                if account.posted != 0 || account.held != 0 {
                    return Err(Rejection::AccountNotEmpty);
                }
            }
            AccountChange::Limit(limits) => {
                detail.limits = Some(*limits);
                account.limits = Some(*limits);
            }
            AccountChange::Describe { name, metadata } => {
                let described = Arc::make_mut(&mut account.described);
                if let Some(name) = name {
                    memo.description = Some(name.clone());
                    described.name.clone_from(name);
                }
                if let Some(metadata) = metadata {
                    detail.clears_metadata = metadata.is_empty();
                    memo.metadata.clone_from(metadata);
                    described.metadata.clone_from(metadata);
                }
            }
        }
        let heading = Heading {
            command,
            kind: JournalKind::AccountChanged,
            currency: account.currency,
            amount: 0,
            refers_to: None,
            memo,
            detail: as_json(&detail),
        };
        self.book(heading, &[])?;
        self.state.accounts.insert(id, account);
        Ok(Outcome::AccountChanged(self.view(id)?))
    }

    /// A customer account as its owner sees it.
    fn view(&self, id: AccountId) -> Result<Account, Rejection> {
        let account = self.customer(id)?;
        Ok(Account {
            id,
            owner: account.owner.unwrap_or_default(),
            account_type: account.account_type.unwrap_or(AccountType::Checking),
            currency: account.currency,
            name: account.described.name.clone(),
            status: account.status,
            balance: account.posted,
            available: account.posted.saturating_sub(account.held),
            limits: account.limits.unwrap_or_default(),
            metadata: account.described.metadata.clone(),
            created_at: account.described.created_at,
        })
    }
}

/// A word that serde knows, as it is stored.
fn as_text(word: &impl serde::Serialize) -> String {
    serde_json::to_value(word).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

/// Detail as it is stored. Plain structs always have a JSON form.
pub(super) fn as_json(detail: &impl serde::Serialize) -> Option<String> {
    serde_json::to_string(detail).ok()
}
