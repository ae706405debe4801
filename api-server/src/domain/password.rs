//! Passwords: Argon2id, a bounded number at a time.

use std::fmt;
use std::sync::Arc;

use argon2::password_hash::Error as HashError;
use argon2::{Algorithm, Argon2, Params, PasswordHasher, PasswordVerifier, Version};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use tokio::task::JoinError;

/// Fewest and most code points of a password.
const LENGTH: std::ops::RangeInclusive<usize> = 8..=128;

/// 19 MiB, two passes, one lane: the floor that OWASP and ASVS 5 (appendix C) give for Argon2id.
const COST: (u32, u32, u32) = (19_456, 2, 1);

/// How many callers may wait per worker; at about 30 ms each, the last waits half a second.
const WAITING_PER_WORKER: usize = 16;

/// A password as a client sent it. `Debug` hides it; it is serialised only into the keyed fingerprint of a request.
#[derive(Clone, Deserialize, Serialize)]
#[serde(transparent)]
pub struct Password(String);

impl Password {
    /// What is wrong with it as a new password, if anything.
    #[must_use]
    pub fn fault(&self) -> Option<&'static str> {
        (!LENGTH.contains(&self.0.chars().count())).then_some("must have 8 to 128 characters")
    }
}

impl From<&str> for Password {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(redacted)")
    }
}

/// Why a password was neither hashed nor compared.
#[derive(Debug, thiserror::Error)]
pub enum PasswordError {
    /// Too many are being worked on and waiting.
    #[error("too many passwords are being hashed")]
    Busy,
    /// Argon2 failed, or a stored hash is not one.
    #[error("password hashing failed: {0}")]
    Hash(#[from] HashError),
    /// The worker thread died.
    #[error("password worker died: {0}")]
    Worker(#[from] JoinError),
}

/// Hashes and compares passwords on blocking threads, as many at a time as there are cores.
#[derive(Clone)]
pub struct Hasher {
    argon2: Argon2<'static>,
    dummy: Arc<str>,
    workers: Arc<Semaphore>,
    queue: Arc<Semaphore>,
}

impl Hasher {
    /// A hasher for `workers` passwords at a time. `salt` is that of the hash compared when a user does not exist.
    pub fn new(workers: usize, salt: [u8; 16]) -> Result<Self, PasswordError> {
        let (memory, passes, lanes) = COST;
        let params = Params::new(memory, passes, lanes, None).map_err(HashError::from)?;
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        let dummy = hash(&argon2, "", &salt)?.into();
        Ok(Self {
            argon2,
            dummy,
            workers: Arc::new(Semaphore::new(workers)),
            queue: Arc::new(Semaphore::new(workers * (1 + WAITING_PER_WORKER))),
        })
    }

    /// The PHC string of a new password.
    pub async fn hash(&self, password: Password, salt: [u8; 16]) -> Result<String, PasswordError> {
        let argon2 = self.argon2.clone();
        Ok(self.run(move || hash(&argon2, &password.0, &salt)).await??)
    }

    /// Whether a password is the stored one. Without a stored one the same work is done and the answer is no.
    pub async fn verify(&self, password: Password, stored: Option<String>) -> Result<bool, PasswordError> {
        let argon2 = self.argon2.clone();
        let known = stored.is_some();
        let stored = stored.unwrap_or_else(|| self.dummy.to_string());
        let outcome = self.run(move || argon2.verify_password(password.0.as_bytes(), stored.as_str())).await?;
        match outcome {
            Ok(()) => Ok(known),
            Err(HashError::PasswordInvalid) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// The permits move into the work, so that a caller who goes away does not free a busy core.
    async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, PasswordError> {
        let place = Arc::clone(&self.queue).try_acquire_owned().map_err(|_| PasswordError::Busy)?;
        let worker = Arc::clone(&self.workers).acquire_owned().await.map_err(|_| PasswordError::Busy)?;
        let task = tokio::task::spawn_blocking(move || {
            let _permits = (place, worker);
            work()
        });
        Ok(task.await?)
    }
}

fn hash(argon2: &Argon2<'_>, password: &str, salt: &[u8]) -> Result<String, HashError> {
    Ok(argon2.hash_password_with_salt(password.as_bytes(), salt)?.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_hash_verifies_its_password_only() {
        let hasher = Hasher::new(1, [7; 16]).unwrap();
        let stored = hasher.hash("correct horse".into(), [1; 16]).await.unwrap();
        assert!(stored.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{stored}");
        assert!(hasher.verify("correct horse".into(), Some(stored.clone())).await.unwrap());
        assert!(!hasher.verify("wrong horse".into(), Some(stored)).await.unwrap());
    }

    #[tokio::test]
    async fn without_a_stored_hash_the_answer_is_no() {
        let hasher = Hasher::new(1, [7; 16]).unwrap();
        assert!(!hasher.verify("".into(), None).await.unwrap(), "even for the password of the dummy");
        assert!(matches!(hasher.verify("x".into(), Some("plain".to_owned())).await, Err(PasswordError::Hash(_))));
    }

    #[tokio::test]
    async fn a_full_queue_is_refused_at_once() {
        let hasher = Hasher::new(1, [7; 16]).unwrap();
        let all = hasher.queue.available_permits();
        let _held = Arc::clone(&hasher.queue).try_acquire_many_owned(u32::try_from(all).unwrap()).unwrap();
        assert!(matches!(hasher.verify("x".into(), None).await, Err(PasswordError::Busy)));
    }

    #[test]
    fn length_is_counted_in_code_points() {
        assert!(Password::from("1234567").fault().is_some());
        assert!(Password::from("1234567é").fault().is_none());
        assert!(Password::from("é".repeat(128).as_str()).fault().is_none());
        assert!(Password::from("é".repeat(129).as_str()).fault().is_some());
    }

    #[test]
    fn debug_output_hides_the_password() {
        assert_eq!(format!("{:?}", Password::from("hunter22")), "Password(redacted)");
    }
}
