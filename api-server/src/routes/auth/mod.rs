//! Registration, sessions and the signed-in user.

pub mod login;
pub mod logout;
pub mod profile;
pub mod refresh;
pub mod register;
pub mod tokens;
pub mod user;
