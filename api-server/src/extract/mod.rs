//! What handlers ask of a request. The types in a handler's signature are its permissions: one that takes a
//! [`Caller`] is for signed-in users of the tenant only.

pub mod access_cache;
pub mod caller;
pub mod context;
pub mod idempotency_key;
pub mod json;
pub mod page;
pub mod path;
pub mod query;
pub mod tenant;

pub use caller::Caller;
pub use context::Context;
pub use idempotency_key::IdempotencyKey;
pub use json::{JsonBody, Validate};
pub use page::Page;
pub use path::PathId;
pub use query::{Filter, Params, Query};
pub use tenant::CurrentTenant;
