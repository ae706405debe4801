//! Tenants as the operator leaves them, with users and accounts, and the proof that no money was lost.

use std::sync::Arc;

use finaiflow_api::clock;
use finaiflow_api::domain::access_token::{Issuer, Subject, issue};
use finaiflow_api::domain::signing_keys::SigningKeys;
use finaiflow_ledger::verify;
use finaiflow_schema::testing::connect;
use serde_json::json;
use sqlx::AssertSqlSafe;
use uuid::Uuid;

use crate::books::{self, Books};
use crate::tenants_bank::Bank;

/// What access tokens name as their issuer.
pub const ISSUER: &str = "http://bench.test";

/// A tenant under load.
pub struct House {
    pub bank: Bank,
    pub books: Arc<Books>,
}

impl House {
    /// With its accounts dealt out to `users`. The API server is not told of the bank yet: that changes its password.
    pub async fn furnish(bank: Bank, accounts: usize, users: usize) -> Self {
        sign_up(&bank, users).await;
        let engine = books::engine(&bank.tenant.app_url, 1);
        let books = Arc::new(Books::open(&engine, accounts, users).await);
        engine.shutdown().await;
        // As autovacuum would in a while, for a thousand tenants at once.
        let analyze = "ANALYZE tenant.accounts, tenant.account_balances, tenant.journals, tenant.entries";
        bank.execute(analyze).await;
        Self { bank, books }
    }

    /// An access token of each user, as a login answers with.
    pub fn tokens(&self) -> Vec<String> {
        let keys = json!({"keys": [self.bank.signing_key]}).to_string();
        let keys = SigningKeys::from_json(keys.as_bytes()).unwrap();
        let issuer = Issuer {
            url: format!("{ISSUER}/tenants/{}", self.bank.name),
            claim_id: self.bank.tenant.claim_id.to_string(),
            lifetime: time::Duration::minutes(30),
        };
        let token = |user| {
            let user_id = books::user(user);
            let subject = Subject { user_id, session_id: user_id };
            issue(&keys, &issuer, subject, Uuid::from_u128(7), clock::system()()).unwrap()
        };
        (0..self.books.users).map(token).collect()
    }

    /// Fails unless each transfer that was acknowledged is booked once and nothing else is, no money came or went, and
    /// the verifier agrees.
    pub async fn assert_sound(&self) {
        let (transfers, bank) = (i64::from(self.books.transfers()), &self.bank);
        let booked =
            "SELECT array[count(*), count(DISTINCT reference), coalesce(max(substr(reference, 2)::bigint) + 1, 0)]
            FROM tenant.journals WHERE kind = 'transfer'";
        let booked: Vec<i64> = bank.read(booked).await;
        assert_eq!(booked, [transfers; 3], "{}: transfers booked, different ones, and the last", bank.name);
        let sums = "SELECT coalesce(max(abs(sum)), 0)::bigint FROM (SELECT sum(posted) FROM tenant.account_balances
            JOIN tenant.accounts ON id = account_id GROUP BY currency) AS currencies";
        assert_eq!(bank.read::<i64>(sums).await, 0, "{}: what a currency's balances add up to", bank.name);
        let report = verify::run(&mut connect(&bank.tenant.maintenance_url).await).await.unwrap();
        assert!(report.balanced(), "{}: {report:?}", bank.name);
    }
}

/// Users with a session each: what registering and logging in leave, without hashing a thousand passwords.
async fn sign_up(bank: &Bank, users: usize) {
    let schema = bank.names().schema.as_str();
    let sql = format!(
        "INSERT INTO {schema}.users (id, email, email_normalized, name, password_hash, status, created_at, updated_at)
         SELECT lpad(to_hex(n), 32, '0')::uuid, n || '@example.com', n || '@example.com', 'User', '!', 'active', now(), now()
         FROM generate_series(1, {users}) AS n;
         INSERT INTO {schema}.sessions (id, user_id, created_at, last_seen_at, idle_expires_at, absolute_expires_at)
         SELECT id, id, now(), now(), now() + interval '1 day', now() + interval '1 day' FROM {schema}.users;"
    );
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut bank.db.superuser().await).await.unwrap();
}
