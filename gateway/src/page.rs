//! The Prometheus page: plain HTTP on an address of its own, which stays private. It has counts and names of institutions; nothing else.

use std::{io, net::SocketAddr, sync::Arc};

use axum::{Router, http::header::CONTENT_TYPE, routing::get};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{hub::Hub, metrics, operations::view};

/// Takes the address, before there is anything to serve; says where it listens.
pub(crate) async fn bind(address: SocketAddr) -> io::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind(address).await?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

/// Serves `/metrics` until `stop`.
pub(crate) fn serve(hub: Arc<Hub>, listener: TcpListener, stop: CancellationToken) {
    let page = move || {
        let hub = Arc::clone(&hub);
        async move {
            view::refresh_gauges(&hub);
            ([(CONTENT_TYPE, metrics::CONTENT_TYPE)], hub.metrics.render())
        }
    };
    let router = Router::new().route("/metrics", get(page));
    tokio::spawn(async move {
        let served = axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned()).await;
        if let Err(error) = served {
            tracing::error!(%error, "the metrics page is not served any more");
        }
    });
}
