//! Small and reproducible; chance of quality is not needed.

pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self((seed + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub fn below(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 33) % sides
    }

    pub fn roll(&mut self, sides: usize) -> usize {
        usize::try_from(self.below(sides as u64)).unwrap()
    }

    /// True this often in a hundred.
    pub fn chance(&mut self, hundredth: usize) -> bool {
        self.roll(100) < hundredth
    }

    pub fn pick<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.roll(all.len())]
    }

    pub fn bytes(&mut self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes.fill_with(|| self.below(256).to_le_bytes()[0]);
        bytes
    }
}
