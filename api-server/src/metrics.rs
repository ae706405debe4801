//! What the server counts. Labels are bounded: routes are templates, never paths, and nothing names a user.

use std::time::Duration;

use axum::http::{Method, StatusCode};
use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry};

/// From well below the fastest answer to the request timeout.
const SECONDS: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0];

/// The collectors of the API server.
#[derive(Debug, Clone)]
pub struct Metrics {
    requests: IntCounterVec,
    durations: HistogramVec,
    logins: IntCounterVec,
}

impl Metrics {
    /// Registers the collectors; a second registration in the same registry is an error.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let requests = IntCounterVec::new(
            Opts::new("finaiflow_http_requests_total", "Requests answered, by route, method and status."),
            &["route", "method", "status"],
        )?;
        let durations = HistogramVec::new(
            HistogramOpts::new("finaiflow_http_request_duration_seconds", "Time to answer, by route and method.")
                .buckets(SECONDS.to_vec()),
            &["route", "method"],
        )?;
        let logins =
            IntCounterVec::new(Opts::new("finaiflow_logins_total", "Logins attempted, by outcome."), &["outcome"])?;
        registry.register(Box::new(requests.clone()))?;
        registry.register(Box::new(durations.clone()))?;
        registry.register(Box::new(logins.clone()))?;
        Ok(Self { requests, durations, logins })
    }

    pub(crate) fn answered(&self, route: &str, method: &Method, status: StatusCode, elapsed: Duration) {
        let method = known(method);
        self.requests.with_label_values(&[route, method, status.as_str()]).inc();
        self.durations.with_label_values(&[route, method]).observe(elapsed.as_secs_f64());
    }

    pub(crate) fn login(&self, succeeded: bool) {
        self.logins.with_label_values(&[if succeeded { "success" } else { "failure" }]).inc();
    }
}

/// A client can invent methods; it must not invent series with them.
fn known(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::HEAD => "HEAD",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invented_methods_share_a_series() {
        let registry = Registry::new();
        let metrics = Metrics::register(&registry).unwrap();
        for method in ["BREW", "WHEN"] {
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            metrics.answered("unmatched", &method, StatusCode::NOT_FOUND, Duration::ZERO);
        }
        assert_eq!(metrics.requests.with_label_values(&["unmatched", "other", "404"]).get(), 2);
        assert!(Metrics::register(&registry).is_err());
    }
}
