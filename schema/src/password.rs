//! Passwords of login roles.

use aws_lc_rs::digest;
use data_encoding::BASE64URL_NOPAD;

/// A login role's password. `Debug` does not show it, and it reaches SQL only as a SCRAM verifier.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(String);

impl Password {
    /// A password of 43 URL-safe characters that carries the 256 random bits given.
    #[must_use]
    pub fn from_random(bits: [u8; 32]) -> Self {
        Self(BASE64URL_NOPAD.encode(&bits))
    }

    /// The password itself, for the Secret that hands it to its user.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// What PostgreSQL stores: `SCRAM-SHA-256$<iterations>:<salt>$<stored key>:<server key>`, salted anew at each call.
    pub(crate) fn scram_verifier(&self) -> String {
        postgres_protocol::password::scram_sha_256(self.0.as_bytes())
    }

    /// SHA-256, enough to recognise a password of 256 random bits.
    pub(crate) fn digest(&self) -> Vec<u8> {
        digest::digest(&digest::SHA256, self.0.as_bytes()).as_ref().to_vec()
    }
}

impl From<String> for Password {
    fn from(password: String) -> Self {
        Self(password)
    }
}

impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Password(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_hides_it_and_the_verifier_needs_no_quoting() {
        let password = Password::from_random([7; 32]);
        assert_eq!(password.expose().len(), 43);
        assert!(!format!("{password:?}").contains(password.expose()));
        let verifier = password.scram_verifier();
        assert!(verifier.starts_with("SCRAM-SHA-256$4096:"));
        assert!(!verifier.contains(['\'', '\\']) && !verifier.contains(password.expose()));
        assert_ne!(verifier, password.scram_verifier());
    }
}
