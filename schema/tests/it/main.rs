//! Integration tests on a real PostgreSQL; see `testing::TenantDb`.

mod conformance;
