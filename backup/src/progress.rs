//! That something long goes on, said every few seconds.

use std::time::{Duration, Instant};

const PAUSE: Duration = Duration::from_secs(5);

/// Counts bytes, and says so in the log now and then.
#[derive(Debug)]
pub struct Progress {
    began: Instant,
    said: Instant,
    bytes: u64,
}

impl Default for Progress {
    fn default() -> Self {
        let began = Instant::now();
        Self { began, said: began, bytes: 0 }
    }
}

impl Progress {
    /// So many more bytes of `what`, of which `rows` have come by so far.
    pub fn add(&mut self, bytes: usize, what: impl std::fmt::Display, rows: u64) {
        self.bytes += bytes as u64;
        if self.said.elapsed() >= PAUSE {
            self.said = Instant::now();
            tracing::info!(%what, rows, bytes = self.bytes, bytes_per_second = self.rate(), "under way");
        }
    }

    /// All bytes so far.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// How long it has taken.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    fn rate(&self) -> u128 {
        u128::from(self.bytes) * 1000 / self.elapsed().as_millis().max(1)
    }
}
