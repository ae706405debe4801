//! A user in answers.

use serde::Serialize;
use time::OffsetDateTime;
use utoipa::ToSchema;

use crate::domain::id;
use crate::openapi::values;
use crate::store::users::User;

/// A user of the tenant.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = User)]
pub struct UserView {
    /// Opaque id.
    #[schema(value_type = values::UserId)]
    id: String,
    /// Address as it was given.
    #[schema(value_type = values::Email)]
    email: String,
    /// Name as it was given.
    #[schema(value_type = values::PersonName)]
    name: String,
    /// When the user registered.
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
}

impl From<User> for UserView {
    fn from(user: User) -> Self {
        Self { id: id::encode(id::USER, user.id), email: user.email, name: user.name, created_at: user.created_at }
    }
}
