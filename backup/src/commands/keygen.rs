//! `keygen`: an age identity, as `age-keygen` prints it.

use std::io::{self, Write as _};

use age::secrecy::ExposeSecret as _;

use super::{Error, Result};

pub fn run() -> Result<()> {
    let identity = age::x25519::Identity::generate();
    let (public, secret) = (identity.to_public(), identity.to_string());
    writeln!(io::stdout(), "# public key: {public}\n{}", secret.expose_secret()).map_err(Error::Output)
}
