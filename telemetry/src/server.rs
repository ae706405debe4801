//! Serving a router until told to stop.

use std::{io, net::SocketAddr};

use axum::Router;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Serves `router` on `address`; after `stop` new connections are refused and the open ones finish.
pub async fn serve(address: SocketAddr, router: Router, stop: CancellationToken) -> io::Result<()> {
    let listener = TcpListener::bind(address).await?;
    tracing::info!(address = %listener.local_addr()?, "listening");
    axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned()).await
}
