//! The OpenAPI document, assembled from what each endpoint says about itself.

pub(crate) mod values;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;
use utoipa::openapi::example::ExampleBuilder;
use utoipa::openapi::header::Header;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{
    ContentBuilder, HeaderBuilder, Object, OpenApi as Document, Ref, RefOr, Response, ResponseBuilder, Type,
};
use utoipa::{IntoParams, Modify, OpenApi};

use crate::problem::{Code, FieldError, MEDIA_TYPE, Problem, ProblemBody};
use crate::routes;

/// A trace id for examples.
const TRACE_ID: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

/// What an answer says about limits, where a policy does not choose otherwise.
const LIMITS: [(&str, &str); 2] = [
    ("RateLimit-Policy", "The limits that count the request: name, quota `q` and window `w` in seconds."),
    ("RateLimit", "What is left of each: requests `r`, and seconds `t` until there is more."),
];

/// What any endpoint may answer.
pub(crate) const ANY: &[Code] = &[Code::IpDenied, Code::QuotaExceeded, Code::Overloaded, Code::Internal];
/// What an endpoint of a tenant may answer.
pub(crate) const TENANT: &[Code] =
    &[Code::TenantRequired, Code::TenantAmbiguous, Code::TenantNotFound, Code::TenantSuspended];
/// What an endpoint for signed-in users may answer.
pub(crate) const CALLER: &[Code] = &[Code::Unauthenticated];
/// What an endpoint that takes a body may answer.
pub(crate) const BODY: &[Code] =
    &[Code::Malformed, Code::ValidationFailed, Code::PayloadTooLarge, Code::UnsupportedMediaType];
/// What a write under an idempotency key may answer.
pub(crate) const KEYED: &[Code] = &[Code::IdempotencyKeyMissing, Code::IdempotencyKeyReused];

/// Declares `Problems`, the error answers of an endpoint, from lists of codes.
macro_rules! problems {
    ($($codes:expr),+ $(,)?) => {
        struct Problems;

        impl utoipa::IntoResponses for Problems {
            fn responses() -> std::collections::BTreeMap<String, utoipa::openapi::RefOr<utoipa::openapi::Response>> {
                $crate::openapi::responses(&[$($codes),+])
            }
        }
    };
}
pub(crate) use problems;

/// One response per status, with an example per code.
pub(crate) fn responses(codes: &[&[Code]]) -> BTreeMap<String, RefOr<Response>> {
    let mut by_status = BTreeMap::<u16, BTreeSet<Code>>::new();
    for &code in codes.iter().copied().flatten() {
        by_status.entry(code.status().as_u16()).or_default().insert(code);
    }
    by_status.into_iter().map(|(status, codes)| (status.to_string(), RefOr::T(response(&codes)))).collect()
}

fn response(codes: &BTreeSet<Code>) -> Response {
    let titles: Vec<_> = codes.iter().map(|code| code.title()).collect();
    let examples = codes.iter().map(|&code| {
        let value = serde_json::to_value(example(code).body(TRACE_ID)).unwrap_or_default();
        (code.slug(), ExampleBuilder::new().value(Some(value)).build())
    });
    let content =
        ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).examples_from_iter(examples).build();
    let mut response = ResponseBuilder::new().description(titles.join("; ")).content(MEDIA_TYPE, content);
    if codes.contains(&Code::Overloaded) || codes.contains(&Code::QuotaExceeded) {
        response = response.header("Retry-After", header(Type::Integer, "Seconds to wait before trying again."));
    }
    if codes.contains(&Code::Unauthenticated) {
        response = response.header("WWW-Authenticate", header(Type::String, "Always `Bearer`."));
    }
    response.build()
}

fn header(kind: Type, description: &str) -> Header {
    HeaderBuilder::new().schema(Some(Object::with_type(kind))).description(Some(description)).build()
}

fn example(code: Code) -> Problem {
    match code {
        Code::ValidationFailed => Problem::invalid_field("/name", "is required"),
        Code::QuotaExceeded => Problem::quota(vec!["requests".to_owned()], 3),
        code => code.into(),
    }
}

/// Names the tenant.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "describes a header to the OpenAPI generator")]
pub(crate) struct TenantHeader {
    /// Name of the tenant. Needed where the host of the request does not name it; must agree where it does.
    #[param(rename = "X-Tenant-ID", value_type = values::TenantName, required = false, example = "acme")]
    tenant_id: Option<String>,
}

/// Makes a write repeatable.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "describes a header to the OpenAPI generator")]
pub(crate) struct KeyHeader {
    /// A new one for each write. Repeating the request with its key for 24 hours answers what the first one answered
    /// and changes nothing.
    #[param(
        rename = "Idempotency-Key",
        value_type = values::IdempotencyKey,
        inline,
        example = "5c2f8a52-8d3c-4f1e-9c0e-2f7f3b8f0f11"
    )]
    idempotency_key: String,
}

/// Makes a write repeatable that need not be.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "describes a header to the OpenAPI generator")]
pub(crate) struct OptionalKeyHeader {
    /// Repeating the request with its key for 24 hours answers what the first one answered and changes nothing.
    #[param(rename = "Idempotency-Key", value_type = values::IdempotencyKey, inline, required = false)]
    idempotency_key: Option<String>,
}

/// Which part of a list.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "describes parameters to the OpenAPI generator")]
pub(crate) struct PageParams {
    /// How many items at most.
    #[param(value_type = u32, required = false, minimum = 1, maximum = 100, default = 20)]
    limit: Option<u32>,
    /// `next_cursor` of the page before.
    #[param(value_type = values::Cursor, required = false)]
    cursor: Option<String>,
}

struct Shared;

impl Modify for Shared {
    fn modify(&self, document: &mut Document) {
        let bearer = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .bearer_format("JWT")
            .description(Some("The `access_token` of `POST /api/v1/auth/login`."))
            .build();
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("bearer", SecurityScheme::Http(bearer));
        let limits = LIMITS.map(|(name, description)| (name.to_owned(), header(Type::String, description).into()));
        components.headers.extend(limits);
    }
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "FinaiFlow API",
        description = "Banking for the tenants of a FinaiFlow installation.\n\n\
            **Tenant.** Named by the host of the request, or by the header `X-Tenant-ID`.\n\n\
            **Signing in.** Register, log in, and send the `access_token` as `Authorization: Bearer`; after it has expired, \
            exchange the `refresh_token`.\n\n\
            **Writes.** Accounts and money need an `Idempotency-Key`: repeated with its key, a request is answered like the \
            first one and changes nothing.\n\n\
            **Shapes.** Money is an integer of minor units (cents) beside an ISO 4217 currency. Ids are opaque strings. Times \
            are RFC 3339 in UTC. Unknown request fields are refused.\n\n\
            **Errors.** Every one is `application/problem+json` (RFC 9457) with a stable `type`.",
        license(name = "MIT", identifier = "MIT")
    ),
    servers((url = "/", description = "This server")),
    components(schemas(ProblemBody, FieldError)),
    modifiers(&Shared),
    tags(
        (name = "auth", description = "Registration, sessions and the signed-in user"),
        (name = "accounts", description = "Accounts, balances and movements of the signed-in user"),
        (name = "transactions", description = "Movements of all accounts of the signed-in user"),
        (name = "transfers", description = "Movements between accounts of the tenant"),
        (name = "holds", description = "Money that is set aside, to be taken or released"),
        (name = "ledger", description = "The books of the bank; for staff"),
        (name = "audit-chain", description = "The chain of hashes over the ledger; for staff"),
        (name = "system", description = "The server itself")
    )
)]
struct Base;

/// The document without any path.
pub(crate) fn base() -> Document {
    Base::openapi()
}

/// The whole document.
#[must_use]
pub fn document() -> Document {
    let mut document = routes::api().split_for_parts().1;
    let methods = document.paths.paths.values_mut();
    let operations = methods.flat_map(|item| [&mut item.get, &mut item.post, &mut item.put, &mut item.patch]).flatten();
    for responses in operations.map(|operation| &mut operation.responses.responses) {
        let counted = responses.contains_key(Code::QuotaExceeded.status().as_str());
        for response in responses.values_mut() {
            let RefOr::T(response) = response else { continue };
            let request_id = header(Type::String, "The request's own, or a new one where it has none.");
            response.headers.insert("X-Request-ID".to_owned(), request_id.into());
            for (name, _) in LIMITS.into_iter().filter(|_| counted) {
                response.headers.insert(name.to_owned(), RefOr::Ref(Ref::new(format!("#/components/headers/{name}"))));
            }
        }
    }
    document
}

/// The whole document as pretty JSON, ending in a line break.
#[must_use]
pub fn openapi_json() -> String {
    let document = serde_json::to_value(document()).unwrap_or_else(|error| json!({"error": error.to_string()}));
    format!("{document:#}\n")
}
