//! The metrics of a process in the Prometheus text format.

use std::fs;

use axum::{Router, http::header::CONTENT_TYPE, response::IntoResponse, routing::get};
use prometheus::{Encoder, Registry, TextEncoder};

/// Fields of `/proc/self/status` that are shown, as what, and what they mean.
const MEMORY: [(&str, &str, &str); 2] = [
    ("VmRSS:", "process_resident_memory_bytes", "Resident memory size in bytes."),
    ("VmHWM:", "process_resident_memory_peak_bytes", "Largest resident memory size so far in bytes."),
];

/// A registry of metrics; clones share it.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    registry: Registry,
}

impl Metrics {
    /// An empty registry.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Where collectors are registered.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Everything registered and this process's memory, in the text format (version 0.0.4).
    pub fn render(&self) -> Result<String, prometheus::Error> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned() + &memory())
    }

    /// `GET /metrics`.
    pub fn router(&self) -> Router {
        let metrics = self.clone();
        Router::new().route("/metrics", get(move || async move { metrics.response() }))
    }

    fn response(&self) -> impl IntoResponse + use<> {
        match self.render() {
            Ok(text) => ([(CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response(),
            Err(error) => {
                tracing::error!(%error, "metrics cannot be rendered");
                axum::http::StatusCode::INTERNAL_SERVER_ERROR.into_response()
            }
        }
    }
}

/// Nothing where the system does not say.
fn memory() -> String {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let metric = |(field, name, help): &(&str, _, _)| {
        let kibibytes: u64 =
            status.lines().find_map(|line| line.strip_prefix(field)?.strip_suffix("kB"))?.trim().parse().ok()?;
        Some(format!("# HELP {name} {help}\n# TYPE {name} gauge\n{name} {}\n", kibibytes * 1024))
    };
    MEMORY.iter().filter_map(metric).collect()
}

#[cfg(test)]
mod tests {
    use axum::{body::Body, http::Request};
    use http_body_util::BodyExt;
    use tower::ServiceExt;

    use super::*;

    #[tokio::test]
    async fn serves_what_is_registered() {
        let metrics = Metrics::new();
        let counter = prometheus::IntCounter::new("finaiflow_things_total", "things").unwrap();
        metrics.registry().register(Box::new(counter.clone())).unwrap();
        counter.inc();
        let request = Request::get("/metrics").body(Body::empty()).unwrap();
        let response = metrics.router().oneshot(request).await.unwrap();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert!(String::from_utf8_lossy(&body).contains("finaiflow_things_total 1"));
    }

    #[test]
    fn shows_the_memory_of_the_process() {
        let text = Metrics::new().render().unwrap();
        let bytes = |name: &str| -> u64 {
            text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).unwrap().parse().unwrap()
        };
        let (now, peak) = (bytes("process_resident_memory_bytes"), bytes("process_resident_memory_peak_bytes"));
        assert!(100_000 < now && now <= peak, "{now} {peak}");
    }
}
