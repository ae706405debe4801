//! Rules of identity and sessions, apart from HTTP and SQL.

pub mod signing_keys;
