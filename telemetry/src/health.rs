//! Liveness and readiness by named gates: a process is ready while every gate is open.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use axum::{Router, http::StatusCode, response::IntoResponse, routing::get};

/// The gates of a process; clones share them.
#[derive(Clone, Debug, Default)]
pub struct Health {
    gates: Arc<Mutex<Vec<Gate>>>,
}

/// One precondition of being ready. Clones share it.
#[derive(Clone, Debug)]
pub struct Gate {
    name: &'static str,
    open: Arc<AtomicBool>,
}

impl Gate {
    /// The precondition holds.
    pub fn open(&self) {
        self.open.store(true, Ordering::Release);
    }

    /// The precondition holds no longer (for instance while draining).
    pub fn close(&self) {
        self.open.store(false, Ordering::Release);
    }
}

impl Health {
    /// No gates: ready.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a closed gate. `name` is shown by `/readyz` while it is closed.
    #[must_use]
    pub fn gate(&self, name: &'static str) -> Gate {
        let gate = Gate { name, open: Arc::new(AtomicBool::new(false)) };
        self.gates.lock().unwrap_or_else(PoisonError::into_inner).push(gate.clone());
        gate
    }

    /// Names of the closed gates; empty when ready.
    #[must_use]
    pub fn waiting_for(&self) -> Vec<&'static str> {
        let gates = self.gates.lock().unwrap_or_else(PoisonError::into_inner);
        gates.iter().filter(|gate| !gate.open.load(Ordering::Acquire)).map(|gate| gate.name).collect()
    }

    /// `GET /livez` (200 while the process answers) and `GET /readyz` (200, or 503 naming the closed gates).
    pub fn router(&self) -> Router {
        let health = self.clone();
        Router::new()
            .route("/livez", get(|| async { "ok" }))
            .route("/readyz", get(move || async move { health.readiness() }))
    }

    fn readiness(&self) -> impl IntoResponse + use<> {
        let waiting = self.waiting_for();
        if waiting.is_empty() {
            (StatusCode::OK, "ok".to_owned())
        } else {
            (StatusCode::SERVICE_UNAVAILABLE, format!("waiting for: {}", waiting.join(", ")))
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::{body::Body, http::Request};
    use tower::ServiceExt;

    use super::*;

    async fn readyz(health: &Health) -> StatusCode {
        let request = Request::get("/readyz").body(Body::empty()).unwrap();
        health.router().oneshot(request).await.unwrap().status()
    }

    #[tokio::test]
    async fn ready_while_every_gate_is_open() {
        let health = Health::new();
        let (first, second) = (health.gate("watch"), health.gate("database"));
        assert_eq!(health.waiting_for(), ["watch", "database"]);
        first.open();
        assert_eq!(readyz(&health).await, StatusCode::SERVICE_UNAVAILABLE);
        second.open();
        assert_eq!(readyz(&health).await, StatusCode::OK);
        first.close();
        assert_eq!(health.waiting_for(), ["watch"]);
    }
}
