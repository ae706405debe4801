//! Who pays whom.

/// How accounts are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Traffic {
    /// Each as often as any other.
    Uniform,
    /// The k-th most popular one k times less often than the first: Zipf's law with exponent 1.
    Zipf,
    /// All pay the first account.
    Hot,
}

/// Small and reproducible; chance of quality is not needed.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: usize) -> Self {
        Self((seed as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// Below `sides`.
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 33) as usize % sides
    }

    fn fraction(&mut self) -> f64 {
        self.roll(1 << 30) as f64 / f64::from(1 << 30)
    }

    /// An account of `accounts` to pay, and another to be paid.
    pub fn pair(&mut self, traffic: Traffic, accounts: usize) -> (usize, usize) {
        let (from, to) = match traffic {
            Traffic::Uniform => (self.roll(accounts), self.roll(accounts)),
            Traffic::Zipf => (self.popular(accounts), self.popular(accounts)),
            Traffic::Hot => (1 + self.roll(accounts - 1), 0),
        };
        (from, if to == from { (to + 1) % accounts } else { to })
    }

    /// The continuous form of Zipf's law, inverted. Popular accounts are not neighbours.
    fn popular(&mut self, accounts: usize) -> usize {
        let rank = (accounts as f64 + 1.0).powf(self.fraction()) as usize - 1;
        rank.min(accounts - 1) * 7919 % accounts
    }
}
