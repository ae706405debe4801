//! Rules of identity and sessions, apart from HTTP and SQL.

pub mod access_token;
pub mod email;
pub mod fingerprint;
pub mod id;
pub mod password;
pub mod refresh;
pub mod signing_keys;
pub mod text;
