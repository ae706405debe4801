//! Randomness as an argument.

use std::fmt;

/// No randomness could be had.
#[derive(Debug, thiserror::Error)]
#[error("the system's random number generator failed")]
pub struct RandomError;

/// A source of random bytes.
#[derive(Clone, Copy)]
pub struct Random(fn(&mut [u8]) -> Result<(), RandomError>);

impl Random {
    /// A source that fills a buffer.
    #[must_use]
    pub const fn new(fill: fn(&mut [u8]) -> Result<(), RandomError>) -> Self {
        Self(fill)
    }

    /// The system's source, fit for keys.
    #[must_use]
    pub const fn system() -> Self {
        Self(|buffer| aws_lc_rs::rand::fill(buffer).map_err(|_| RandomError))
    }

    /// `N` fresh bytes.
    pub fn bytes<const N: usize>(self) -> Result<[u8; N], RandomError> {
        let mut bytes = [0; N];
        (self.0)(&mut bytes)?;
        Ok(bytes)
    }
}

impl fmt::Debug for Random {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Random(..)")
    }
}
