//! The Prometheus page: plain HTTP on an address of its own, which stays private. It knows counts; never names of persons or
//! content.

use std::{io, net::SocketAddr, sync::Arc};

use axum::{Router, http::header::CONTENT_TYPE, routing::get};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{
    core::{BACKOFFICE, Core, GATEWAY},
    metrics,
};

/// Serves `/metrics` at `address` until `stop`; says where it listens.
pub(crate) async fn serve(core: Arc<Core>, address: SocketAddr, stop: CancellationToken) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind(address).await?;
    let address = listener.local_addr()?;
    let page = move || {
        let core = Arc::clone(&core);
        async move {
            refresh_gauges(&core);
            ([(CONTENT_TYPE, metrics::CONTENT_TYPE)], core.metrics.render())
        }
    };
    let router = Router::new().route("/metrics", get(page));
    tokio::spawn(async move {
        let served = axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned()).await;
        if let Err(error) = served {
            tracing::error!(%error, "the metrics page is not served any more");
        }
    });
    Ok(address)
}

/// Brings the gauges of queues and store up to date.
fn refresh_gauges(core: &Core) {
    let gauge = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    let health = core.store.health();
    core.metrics.store_set_aside.set(gauge(health.set_aside));
    core.metrics.store_not_erased.set(gauge(health.not_erased));
    core.metrics.store_full.set(i64::from(health.full));
    for (queue, waiting) in [(GATEWAY, &core.metrics.outbox), (BACKOFFICE, &core.metrics.inbox)] {
        match core.store.queue(queue) {
            Ok(stats) => drop(waiting.set(gauge(stats.waiting))),
            Err(error) => {
                tracing::error!(queue, %error, "how much waits cannot be read: the metrics show what did before; look at the disk");
            }
        }
    }
}
