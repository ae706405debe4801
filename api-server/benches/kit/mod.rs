//! What the benchmarks over HTTP share: the program under test, a client that costs little, and figures.

pub mod figures;
pub mod process;
pub mod wire;
