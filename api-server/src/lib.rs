//! The API server of FinaiFlow: each tenant's financial endpoints over HTTP.

pub mod domain;
pub mod tenant;
