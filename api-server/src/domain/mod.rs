//! Rules of identity, sessions and texts, apart from HTTP and SQL.

pub mod access_token;
pub mod email;
pub mod fingerprint;
pub mod id;
pub mod moment;
pub mod password;
pub mod refresh;
pub mod signing_keys;
pub mod text;
